//! The tenant's clock, as its `Date` headers tell it.

use jiff::fmt::rfc2822::DateTimePrinter;

use super::*;

#[tokio::test]
async fn times_are_moved_to_the_tenants_clock() {
    let clock = clock();
    let me = Reply::ok(&json!({"roles": []})).header("date", "Thu, 01 Jan 2026 00:01:00 GMT");
    let server = Scripted::script([me]).await;
    let tenant = server.tenant(&clock);
    assert_eq!(tenant.ping().await.expect("it answers").clock_ahead.map(|ahead| ahead.as_secs()), Some(60));
    let ours = "2026-01-01T00:00:10.700Z".parse().expect("a time");
    let (first, last) = tenant.between_on_its_clock(ours);
    assert_eq!((first.to_string(), last.to_string()), ("2026-01-01T00:01:10Z".into(), "2026-01-01T00:01:11Z".into()));
    let ours = "2026-01-01T00:00:10.200Z".parse().expect("a time");
    assert_eq!(tenant.on_its_clock(ours).to_string(), "2026-01-01T00:01:10Z");
    assert_eq!(tenant.earliest(ours).to_string(), "2026-01-01T00:01:05Z");
}

/// A tenant whose clock is `ahead` of ours (seconds), asked once for each of these times that its answer takes.
async fn asked_for_its_clock(ahead: i64, answers_take: &[Duration]) -> Arc<Tenant> {
    let clock = clock();
    clock.advance(Duration::from_millis(700)).await;
    let (shown, mut late) = (clock.clone(), std::collections::VecDeque::from(answers_take.to_vec()));
    let server = Scripted::answering(move |_| {
        let date = Timestamp::from_second((shown.now() + SignedDuration::from_secs(ahead)).as_second()).expect("a time");
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&date).expect("a date");
        Some(Reply::ok(&json!({"roles": []})).header("date", date).late(&shown, late.pop_front()?))
    })
    .await;
    let tenant = server.tenant(&clock);
    for _ in answers_take {
        drive(&clock, tenant.ping()).await.expect("it answers");
    }
    tenant
}

#[tokio::test]
async fn the_tenants_clock_is_certain_after_a_quick_answer_and_not_after_slow_ones_alone() {
    let (quick, slow) = (Duration::from_millis(200), Duration::from_secs(9));
    for (answers_take, certain) in [
        (vec![], false),
        (vec![quick], true),
        (vec![slow], false),
        (vec![slow, slow], false),
        (vec![slow, quick], true),
        (vec![quick, slow], true),
    ] {
        let tenant = asked_for_its_clock(60, &answers_take).await;
        assert_eq!(tenant.clock_is_certain(), certain, "{answers_take:?}");
        let (first, last) = tenant.between_on_its_clock("2026-01-01T00:00:10Z".parse().expect("a time"));
        let truth = if answers_take.is_empty() { 10 } else { 70 };
        let (first, last) = (first.as_second() - 1_767_225_600, last.as_second() - 1_767_225_600);
        assert!(first <= truth && truth <= last && (last - first <= 2) == (certain || answers_take.is_empty()), "{first}..{last}");
    }
}

#[tokio::test]
async fn nothing_of_ours_was_created_before_the_earliest_time_however_slowly_the_tenant_answers() {
    let ours = "2026-01-01T00:00:10Z".parse().expect("a time");
    for takes in [0, 1, 9, 25] {
        let tenant = asked_for_its_clock(0, &[Duration::from_secs(takes)]).await;
        let before = tenant.between_on_its_clock(ours).0.duration_since(tenant.earliest(ours)).as_secs();
        assert!((0..=6).contains(&before), "{takes} s: {before}");
    }
}

#[tokio::test]
async fn a_tenants_clock_that_is_set_is_believed_from_the_next_answer_on() {
    let clock = clock();
    let dates = ["Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 01:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"];
    let server = Scripted::script(dates.map(|date| Reply::ok(&json!({"roles": []})).header("date", date))).await;
    let tenant = server.tenant(&clock);
    for ahead in [0, 3_600, 0] {
        assert_eq!(tenant.ping().await.expect("it answers").clock_ahead.map(|ahead| ahead.as_secs()), Some(ahead));
        assert!(tenant.clock_is_certain());
    }
}
