//! What a machine may lack. A test that needs it says SKIPPED on stderr and passes; with the variable of that one thing, or with
//! `IOLAUS_REQUIRE_ALL=1`, it fails instead. Every skip of this binary goes through here.

use std::io::Write;

/// Makes every skip a failure.
const REQUIRE_ALL: &str = "IOLAUS_REQUIRE_ALL";

/// Something that some tests need and not every machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    #[cfg(feature = "temporal")]
    Cluster,
    Compiler,
    Docker,
    Kubernetes,
    Mount,
    Namespaces,
    OtherUser,
    Prometheus,
    Pyatlan,
    Root,
    Strace,
}

impl Need {
    /// The variable that makes its lack a failure.
    fn variable(self) -> &'static str {
        match self {
            #[cfg(feature = "temporal")]
            Self::Cluster => "IOLAUS_REQUIRE_CLUSTER",
            Self::Compiler => "IOLAUS_REQUIRE_COMPILER",
            Self::Docker => "IOLAUS_REQUIRE_DOCKER",
            Self::Kubernetes => "IOLAUS_REQUIRE_KUBERNETES",
            Self::Mount => "IOLAUS_REQUIRE_MOUNT",
            Self::Namespaces => "IOLAUS_REQUIRE_NAMESPACES",
            Self::OtherUser => "IOLAUS_REQUIRE_OTHER_USER",
            Self::Prometheus => "IOLAUS_REQUIRE_PROMETHEUS",
            Self::Pyatlan => "IOLAUS_REQUIRE_PYATLAN",
            Self::Root => "IOLAUS_REQUIRE_ROOT",
            Self::Strace => "IOLAUS_REQUIRE_STRACE",
        }
    }
}

/// Says that a test is left out for the lack of something.
///
/// # Panics
/// If that is required here.
pub(crate) fn skip(need: Need, why: &str) {
    if let Err(refused) = may_skip(need, why, |name| std::env::var(name).ok()) {
        panic!("{refused}");
    }
    // Past the capture of the test harness, which would swallow what a passing test says.
    writeln!(std::io::stderr(), "\nSKIPPED: {why} ({}=1 makes this a failure)", need.variable()).expect("stderr is there");
}

/// Whether tests on a cluster were switched off by hand, which is said.
#[cfg(feature = "temporal")]
pub(crate) fn skips_cluster() -> bool {
    let skips = std::env::var("IOLAUS_SKIP_CLUSTER").is_ok_and(|value| value == "1");
    if skips {
        skip(Need::Cluster, "IOLAUS_SKIP_CLUSTER=1 leaves out what needs a Temporal server");
    }
    skips
}

fn may_skip(need: Need, why: &str, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let required = |name: &&str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
    match [REQUIRE_ALL, need.variable()].iter().find(|name| required(name)) {
        Some(name) => Err(format!("{name} is set, and a test would be skipped: {why}")),
        None => Ok(()),
    }
}

#[test]
fn a_skip_is_a_failure_where_everything_or_that_one_thing_is_required() {
    let with = |set: &'static str, value: &'static str| {
        let variable = move |name: &str| (name == set).then(|| value.to_owned());
        may_skip(Need::Strace, "there is no strace", variable)
    };
    for set in ["IOLAUS_REQUIRE_ALL", "IOLAUS_REQUIRE_STRACE"] {
        let refused = with(set, "1").unwrap_err();
        assert!(refused.contains(set) && refused.contains("there is no strace"), "{refused}");
        assert_eq!((with(set, "0"), with(set, "")), (Ok(()), Ok(())));
    }
    assert_eq!(with("IOLAUS_REQUIRE_DOCKER", "1"), Ok(()));
}

#[test]
fn the_check_before_a_merge_requires_everything() {
    let run = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run")).unwrap();
    assert!(run.contains("export IOLAUS_REQUIRE_ALL=1\n"), "{run}");
}
