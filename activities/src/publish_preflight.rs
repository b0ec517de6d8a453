//! `publish_preflight`: may this user publish to this connection? Asked before an extraction runs for hours in vain.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activity::{Activity, ActivityError, ActivityOptions, InputError, Timeouts};
use crate::context::ActivityContext;
use crate::failure::Failure;
use crate::follow::command;
use crate::inputs::check_visible;
use crate::retry::RetryPolicy;
use crate::tenant::{PreflightAnswer, Tenants};
use crate::text::shell_word;
use crate::verdict::Verdict;

/// The checks that the tenant is known to make. The second needs a connection.
const USER_ENABLED: &str = "UserEnabled";
const PUBLISH_PERMISSION: &str = "AtlanPublishPermission";
/// How many failed checks become checks of the verdict; the facts show more.
const MOST_CHECKS: usize = 32;

/// Asks the tenant whether a user may publish to a connection.
///
/// Repeat story: it only asks. A second attempt gets the answer of its own moment.
///
/// Only a 200 with a boolean `passed` is a verdict. Whatever else comes back means that the tenant could not be asked, which is
/// neither yes nor no.
pub struct PublishPreflight {
    tenants: Arc<Tenants>,
}

/// What `publish_preflight` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishPreflightInput {
    /// The user's id (a GUID of the tenant's identity provider), usually that of the workflow's creator.
    #[serde(alias = "user-id")]
    pub user_id: String,
    /// The connection, as in `default/snowflake/1234567890`. Empty: only the user is checked.
    #[serde(alias = "connection-qualified-name")]
    pub connection_qualified_name: String,
}

impl PublishPreflight {
    /// Asks these tenants.
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self { tenants }
    }
}

impl Activity for PublishPreflight {
    const NAME: &'static str = "publish_preflight";
    type Input = PublishPreflightInput;

    /// It is a gate: better no answer in two minutes than a late one.
    fn options(_: &Self::Input) -> ActivityOptions {
        ActivityOptions {
            retry: RetryPolicy { maximum_attempts: 5, ..RetryPolicy::default() },
            timeouts: Timeouts {
                start_to_close: Duration::from_secs(30),
                schedule_to_close: Some(Duration::from_secs(120)),
                ..Timeouts::default()
            },
            ..ActivityOptions::default()
        }
    }

    fn validate(input: &Self::Input) -> Result<(), InputError> {
        InputError::unless(!input.user_id.trim().is_empty(), "user_id", "must not be empty")?;
        check_visible("user_id", &input.user_id)?;
        check_visible("connection_qualified_name", &input.connection_qualified_name)
    }

    async fn run(&self, ctx: &ActivityContext, input: Self::Input) -> Result<Verdict, ActivityError> {
        let tenant = self.tenants.get(ctx.tenant())?;
        let asked = tenant.publish_preflight(&input.user_id, &input.connection_qualified_name);
        let answer = ctx.unless_stopped(asked).await?.map_err(|failure| again(ctx, &input, failure))?;
        Ok(conclude(&input, answer))
    }
}

/// A question that got no answer, and no better advice, is asked again: it changes nothing.
fn again(ctx: &ActivityContext, input: &PublishPreflightInput, failure: Failure) -> Failure {
    if failure.suggested_action.is_some() {
        return failure;
    }
    let user = format!("user_id={}", input.user_id);
    let connection = format!("connection_qualified_name={}", input.connection_qualified_name);
    failure.suggest(command(ctx, &format!("publish_preflight {} {}", shell_word(&user), shell_word(&connection))))
}

/// The tenant's boolean decides; the list of failed checks explains it, and is in the facts as it was sent, within limits.
fn conclude(input: &PublishPreflightInput, answer: PreflightAnswer) -> Verdict {
    let PreflightAnswer { passed, failed_checks, message } = answer;
    let (user, connection) = (&input.user_id, &input.connection_qualified_name);
    let message = message.filter(|message| !message.trim().is_empty()).unwrap_or_else(|| match (passed, connection.as_str()) {
        (true, "") => format!("user {user} may publish"),
        (false, "") => format!("user {user} may not publish"),
        (true, _) => format!("user {user} may publish to {connection}"),
        (false, _) => format!("user {user} may not publish to {connection}"),
    });
    let verdict = if passed { Verdict::passed(message) } else { Verdict::failed(message) };
    with_checks(verdict, &failed_checks, !connection.is_empty())
        .fact("user_id", user.as_str())
        .fact("connection_qualified_name", connection.as_str())
        .fact("failed_checks", failed_checks)
}

/// A failing check for each name that is listed. The known ones passed only if the answer as a whole did: a list of what failed does not
/// say that the others were looked at.
fn with_checks(verdict: Verdict, failed_checks: &Value, has_connection: bool) -> Verdict {
    if verdict.is_passed() {
        let verdict = verdict.check(USER_ENABLED, true);
        return if has_connection { verdict.check(PUBLISH_PERMISSION, true) } else { verdict };
    }
    let names = failed_checks.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::trim);
    let mut listed: Vec<&str> = Vec::new();
    for name in names {
        if !name.is_empty() && !listed.contains(&name) && listed.len() < MOST_CHECKS {
            listed.push(name);
        }
    }
    listed.into_iter().fold(verdict, |verdict, name| verdict.check(name, false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::activity::ActivityInfo;
    use crate::clock::ManualClock;
    use crate::context::Stop;
    use crate::failure::Category;
    use crate::tenant::scripted::{Reply, Scripted, clock, drive};
    use crate::testing::TestHost;

    const INPUT: fn() -> Value = || json!({"user_id": "8c1e", "connection_qualified_name": "default/snowflake/1"});

    async fn ask(input: Value, replies: impl IntoIterator<Item = Reply>) -> Result<Verdict, ActivityError> {
        let clock = clock();
        let server = Scripted::script(replies).await;
        let host = TestHost::new(clock.clone());
        drive(&clock, host.attempt(PublishPreflight::new(server.tenants(&clock)), input)).await
    }

    async fn failure(replies: impl IntoIterator<Item = Reply>) -> Failure {
        match ask(INPUT(), replies).await {
            Err(ActivityError::Failed(failure)) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    #[test]
    fn a_field_with_characters_that_do_not_show_is_refused_by_its_name() {
        for field in ["user_id", "connection_qualified_name"] {
            for hidden in ["a\nb", "a\u{1b}b", "a\u{202E}b"] {
                let mut input = INPUT();
                input[field] = hidden.into();
                let input = serde_json::from_value(input).expect("an input");
                assert_eq!(PublishPreflight::validate(&input).expect_err(hidden).field, field);
            }
        }
    }

    #[tokio::test]
    async fn the_tenants_boolean_decides_and_its_list_explains() {
        let (user, publish) = (USER_ENABLED, PUBLISH_PERMISSION);
        // (passed, failed_checks, has a connection) -> checks
        let rows = [
            (true, json!([]), true, vec![(user, true), (publish, true)]),
            (true, json!(null), true, vec![(user, true), (publish, true)]),
            (true, json!([]), false, vec![(user, true)]),
            (false, json!([publish]), true, vec![(publish, false)]),
            (false, json!([user, publish]), true, vec![(user, false), (publish, false)]),
            (false, json!([user]), false, vec![(user, false)]),
            (false, json!(["Quota", "Quota", 7, "", ["Nested"]]), true, vec![("Quota", false)]),
            (false, json!({"UserEnabled": "no"}), true, vec![]),
            (false, json!("UserEnabled"), true, vec![]),
            (false, json!([]), true, vec![]),
            (false, json!(null), true, vec![]),
            (true, json!({}), true, vec![(user, true), (publish, true)]),
        ];
        for (passed, failed_checks, has_connection, checks) in rows {
            let mut input = INPUT();
            if !has_connection {
                input["connection_qualified_name"] = json!("");
            }
            let body = json!({"passed": passed, "failed_checks": failed_checks, "message": "their words"});
            let verdict = ask(input, [Reply::ok(&body)]).await.expect("a verdict");
            assert_eq!(verdict.is_passed(), passed, "{body}");
            assert_eq!(verdict.message(), "their words");
            let got: Vec<_> = verdict.checks().iter().map(|check| (check.name.as_str(), check.passed)).collect();
            assert_eq!(got, checks, "{body}");
            assert_eq!(verdict.facts()["failed_checks"], failed_checks);
        }
    }

    #[tokio::test]
    async fn could_not_ask_is_neither_yes_nor_no() {
        let rows = [
            (Reply::ok(&json!({"failed_checks": []})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::ok(&json!({"passed": "true"})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::ok(&json!([])), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::text(200, "<html>"), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::text(200, ""), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::json(201, &json!({"passed": true})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::json(202, &json!({"passed": true})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::json(203, &json!({"passed": false})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::json(206, &json!({"passed": true})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::json(299, &json!({"passed": true})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::ok(&json!({"passed": true, "error": "down"})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::ok(&json!({"passed": false, "errorCode": "E1"})), 1, "tenant.unreadable", Category::DependencyUnavailable),
            (Reply::text(403, "<html>blocked</html>"), 3, "tenant.unavailable", Category::DependencyUnavailable),
            (Reply::text(404, "404 page not found"), 1, "preflight.endpoint_absent", Category::Unimplemented),
            (Reply::text(405, ""), 1, "preflight.endpoint_absent", Category::Unimplemented),
            (Reply::json(401, &json!({})), 2, "tenant.unauthenticated", Category::Auth),
            (Reply::json(500, &json!({})), 1, "tenant.unavailable", Category::DependencyUnavailable),
            (Reply::json(503, &json!({})), 3, "tenant.unavailable", Category::DependencyUnavailable),
            (Reply::cut(), 3, "tenant.connection_lost", Category::DependencyUnavailable),
        ];
        for (reply, sends, code, category) in rows {
            let failure = failure(vec![reply; sends]).await;
            assert_eq!((failure.code.as_ref(), failure.category), (code, category), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_contradiction_is_neither_yes_nor_no() {
        for body in [
            r#"{"passed": true, "failed_checks": ["UserEnabled"]}"#,
            r#"{"passed": true, "failed_checks": {"UserEnabled": false}}"#,
            r#"{"passed": true, "failed_checks": "UserEnabled"}"#,
            r#"{"passed": true, "failed_checks": 1}"#,
            r#"{"passed": false, "passed": true}"#,
            r#"{"passed": true, "failed_checks": [], "failed_checks": ["UserEnabled"]}"#,
        ] {
            let failure = failure([Reply::text(200, body)]).await;
            assert!(failure.code == "tenant.unreadable" && failure.retryable, "{body}: {failure}");
        }
    }

    #[tokio::test]
    async fn failed_checks_of_any_depth_and_length_leave_a_verdict_that_can_be_read_again() {
        let nested = format!("{}{}", "[".repeat(126), "]".repeat(126));
        let many: Vec<_> = (0..5_000).map(|n| format!("{n}-{}", "x".repeat(40))).collect();
        for failed_checks in [nested, json!(many).to_string(), json!(["x".repeat(100_000)]).to_string()] {
            let body = format!(r#"{{"passed": false, "failed_checks": {failed_checks}}}"#);
            let verdict = ask(INPUT(), [Reply::text(200, &body)]).await.expect("a verdict");
            let stored = serde_json::to_string(verdict.facts()).expect("it is JSON");
            assert!(stored.len() < 64 * 1024, "{} bytes", stored.len());
            let again: serde_json::Map<String, Value> = serde_json::from_str(&stored).expect("it is readable");
            assert_eq!(&again, verdict.facts());
            assert!(verdict.checks().len() <= MOST_CHECKS && verdict.checks().iter().all(|check| check.name.len() <= 256));
        }
    }

    #[tokio::test]
    async fn a_denial_names_who_asked_and_what_is_needed() {
        let me = Reply::ok(&json!({"username": "jane", "roles": []}));
        let denied = Reply::json(403, &json!({"message": "no"}));
        let failure = failure([denied.clone(), denied.clone(), denied, me]).await;
        assert!(failure.category == Category::Permission && !failure.retryable);
        assert!(failure.message.contains("jane") && failure.message.contains("service account"), "{failure}");
    }

    #[tokio::test]
    async fn a_question_without_an_answer_suggests_the_same_command_again() {
        let down = vec![Reply::cut(); 3];
        let again = "iolaus execute publish_preflight user_id=8c1e connection_qualified_name=default/snowflake/1";
        assert_eq!(failure(down.clone()).await.suggested_action.as_deref(), Some(again));
        let input = json!({"user_id": "o'neil; x", "connection_qualified_name": ""});
        let Err(ActivityError::Failed(failure)) = ask(input, down).await else { panic!("no failure") };
        let quoted = r"iolaus execute publish_preflight 'user_id=o'\''neil; x' connection_qualified_name=".to_owned();
        assert_eq!(failure.suggested_action, Some(quoted));
    }

    #[tokio::test]
    async fn a_stop_ends_the_asking() {
        let clock: Arc<ManualClock> = clock();
        let server = Scripted::answering(|_| Some(Reply::hang())).await;
        let host = TestHost::new(clock.clone());
        host.stop(Some(Stop::Draining));
        let ended = host.attempt(PublishPreflight::new(server.tenants(&clock)), INPUT()).await;
        assert_eq!(ended, Err(ActivityError::Interrupted));
    }

    #[test]
    fn input_is_read_in_both_spellings_and_strictly() {
        let info = ActivityInfo::of::<PublishPreflight>();
        let kebab = info.prepare(json!({"user-id": "u", "connection-qualified-name": ""})).expect("it is accepted");
        assert_eq!(kebab.input, json!({"user_id": "u", "connection_qualified_name": ""}));
        for (input, field) in [
            (json!({"user_id": " ", "connection_qualified_name": ""}), "user_id"),
            (json!({"user_id": "u", "connection_qualified_name": "", "mode": 1}), "mode"),
        ] {
            assert_eq!(info.prepare(input).expect_err("it is refused").field, field);
        }
        assert!(info.prepare(json!({"user_id": "u"})).is_err());
    }
}
