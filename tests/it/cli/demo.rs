//! The first thing that anybody runs.

use super::harness::Place;

#[test]
fn the_demo_ends_as_expected_and_touches_nothing_of_the_users() {
    let mut place = Place::new();
    place.set("ATLAN_BASE_URL", "http://127.0.0.1:1");
    place.set("IOLAUS_WORKER__SLOTS_WROK", "a mistake that is none of the demo's business");
    let ran = place.run("demo");
    let told = ran.json();
    assert_eq!((ran.code, told["as_expected"].as_bool()), (0, Some(true)), "{ran:#?}");
    let jobs = told["jobs"].as_array().expect("a list");
    assert!(jobs.len() >= 12, "{}", jobs.len());
    for activity in ["publish_preflight", "workflow_rerun", "await_completion", "token_admin_grant"] {
        assert!(jobs.iter().any(|job| job["verdict"]["activity"] == activity), "no job of {activity}");
    }
    assert!(told["duration_ms"].as_u64().is_some_and(|ms| ms < 10_000), "{}", told["duration_ms"]);
    assert!(!place.database().exists());
    let directory = std::path::PathBuf::from(told["directory"].as_str().expect("a path"));
    assert!(directory.join("iolaus.db").exists());
    let text = place.run("demo --output text").stdout;
    let named = text.lines().find_map(|line| line.strip_prefix("directory  ")).expect("a directory");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(named) && last.ends_with("may be deleted."), "{last}");
    assert!(text.contains("Try next:") && text.contains("iolaus execute"), "{text}");
}
