use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt;

use secrecy::ExposeSecret;

use super::*;
use crate::job::Throttle;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let home = ("HOME".into(), "/home/nobody".into());
    std::iter::once(home).chain(pairs.iter().map(|(name, value)| (name.into(), value.into()))).collect()
}

fn load(toml: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, toml).expect("written");
    Config::load(Some(file), &environment(pairs))
}

fn refused(toml: &str, pairs: &[(&str, &str)]) -> String {
    let error = load(toml, pairs).expect_err("it is refused");
    format!("{error}\nhint: {}", error.hint)
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_line_and_not_read_with_another_character() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, b"[tenants.default]\napi_key = \"hush\xff\"\n").expect("written");
    let error = Config::load(Some(file), &environment(&[])).expect_err("it is refused");
    let text = format!("{error}\nhint: {}", error.hint);
    assert!(text.contains("mine.toml") && text.contains("line 2 is not UTF-8") && !text.contains("hush"), "{text}");
}

#[test]
fn the_defaults_alone_are_a_whole_configuration() {
    let config = Config::load(None, &environment(&[])).expect("it loads");
    assert_eq!(config.database.path, PathBuf::from("/home/nobody/.local/state/iolaus/iolaus.db"));
    assert_eq!((config.worker.slots_work, config.worker.slots_waits), (32, 10_000));
    assert_eq!(config.worker.worker_timeout, Duration::from_secs(10));
    assert_eq!(config.database.retention, Duration::from_secs(7 * 86_400));
    assert!(config.tenant("default").expect("it is there").api_key.is_none());
    assert!(config.file.is_none() && config.activities.is_empty());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let toml = "[worker]\nslots_work = 4\nslots_waits = 5\n[tenants.acme]\nbase_url = \"https://acme.example.com\"\n";
    let config = load(toml, &[("IOLAUS_WORKER__SLOTS_WORK", "8"), ("IOLAUS_WORKER__STALL_AFTER", "90s")]).expect("it loads");
    assert_eq!((config.worker.slots_work, config.worker.slots_waits), (8, 5));
    assert_eq!(config.worker.stall_after, Duration::from_secs(90));
    let names: Vec<_> = config.tenants.keys().map(String::as_str).collect();
    assert_eq!(names, ["acme", "default"]);
}

#[test]
fn the_vendors_names_are_honoured_and_our_own_win_over_them() {
    let vendor = [("ATLAN_BASE_URL", "https://a"), ("ATLAN_API_KEY", "one")];
    let tenant = load("", &vendor).expect("it loads").tenants.remove("default").expect("it is there");
    assert_eq!((tenant.base_url.as_str(), tenant.api_key.expect("a key").expose_secret()), ("https://a", "one"));
    let both =
        [vendor[0], vendor[1], ("IOLAUS_TENANTS__DEFAULT__BASE_URL", "https://b"), ("IOLAUS_TENANTS__DEFAULT__API_KEY_FILE", "/k")];
    let tenant =
        load("[tenants.default]\napi_key = 'two'\n", &both).expect("it loads").tenants.remove("default").expect("it is there");
    assert_eq!(tenant.base_url, "https://b");
    assert!(tenant.api_key.is_none() && tenant.api_key_file == Some("/k".into()), "the later of the two ways wins");
    let oauth = [("ATLAN_OAUTH_CLIENT_ID", "oauth-client-1"), ("ATLAN_OAUTH_CLIENT_SECRET", "hush")];
    let tenant =
        load("[tenants.default]\napi_key = 'two'\n", &oauth).expect("it loads").tenants.remove("default").expect("it is there");
    assert!(tenant.api_key.is_none() && tenant.oauth_client_id == "oauth-client-1", "a later layer's way to log in wins");
    let three = [oauth[0], oauth[1], vendor[1]];
    let tenant = load("", &three).expect("it loads").tenants.remove("default").expect("it is there");
    assert!(
        tenant.api_key.is_some() && tenant.oauth_client_secret.is_none(),
        "of the vendor's own two, the key wins, as in its client"
    );
    let empty = load("[tenants.default]\nbase_url = 'https://file'\n", &[("ATLAN_BASE_URL", "")]).expect("it loads");
    assert_eq!(empty.tenants["default"].base_url, "https://file", "an empty vendor's variable is no setting");
}

#[test]
fn options_of_an_activity_can_be_set_in_file_and_environment() {
    let toml = "[activities.publish_preflight]\nstart_to_close = '5s'\nbackoff_coefficient = 1.5\n";
    let list = ("IOLAUS_ACTIVITIES__PUBLISH_PREFLIGHT__NON_RETRYABLE_CODES", "a.b, c.d");
    let config = load(toml, &[list, ("IOLAUS_ACTIVITIES__PUBLISH_PREFLIGHT__MAXIMUM_ATTEMPTS", "3")]).expect("it loads");
    let overrides = &config.activities["publish_preflight"];
    assert_eq!(overrides.start_to_close, Some(Duration::from_secs(5)));
    assert_eq!(overrides.maximum_attempts, Some(3));
    assert_eq!(overrides.non_retryable_codes.as_deref(), Some(["a.b".to_owned(), "c.d".to_owned()].as_slice()));
}

#[test]
fn a_refusal_names_the_key_its_source_and_the_hint() {
    type Row = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let rows: &[Row] = &[
        (
            "[worker]\nslots_wrok = 4",
            &[],
            &["`worker.slots_wrok`", "mine.toml", "no such key", "did you mean `worker.slots_work`?"],
        ),
        ("[worker]\nslots = 4", &[], &["did you mean `worker.slots_waits` or `worker.slots_work`?", "`iolaus schema config`"]),
        ("", &[("IOLAUS_WORKER__SLOTS", "4")], &["did you mean `worker.slots_waits` or `worker.slots_work`?"]),
        ("[worker]\nretention = '9d'", &[], &["did you mean `database.retention`?"]),
        ("[worker]\nwait_slots = 4", &[], &["did you mean `worker.slots_waits`?"]),
        ("[worker]\nurl = 'x'", &[], &["did you mean `tenants.default.base_url`"]),
        ("[tenants.acme]\nkey = 'x'", &[], &["did you mean `tenants.acme.api_key` or `tenants.acme.api_key_file`?"]),
        ("", &[("IOLAUS_WORKER_SLOTS_WORK", "4")], &["variable IOLAUS_WORKER_SLOTS_WORK", "IOLAUS_WORKER__SLOTS_WORK"]),
        ("", &[("IOLAUS_NONSENSE", "4")], &["variable IOLAUS_NONSENSE", "no such key", "iolaus schema config"]),
        ("[worker]\nslots_work = 'many'", &[], &["`worker.slots_work`", "mine.toml", "\"many\"", "integer"]),
        ("", &[("IOLAUS_WORKER__SLOTS_WORK", "many")], &["`worker.slots_work`", "the variable IOLAUS_WORKER__SLOTS_WORK"]),
        ("", &[("IOLAUS_WORKER__SLOTS_WORK", "")], &["set but empty", "unset IOLAUS_WORKER__SLOTS_WORK"]),
        ("[worker]\nslots_work = 0", &[], &["`worker.slots_work`", "mine.toml", "choose 1 to 1000000"]),
        ("[worker]\ncancel_grace = '3 weeks'", &[], &["`worker.cancel_grace`", "mine.toml", "`3 weeks` is no duration"]),
        ("[tenants.acme]\nbase_ulr = 'x'", &[], &["`tenants.acme.base_ulr`", "did you mean `tenants.acme.base_url`?"]),
        ("[tenants.acme]\ngeneration = 'arog'", &[], &["`tenants.acme.generation`", "mine.toml", "arog"]),
        ("[host]\nkind = 'redis'", &[], &["`host.kind`", "mine.toml", "redis"]),
        ("[database]\npath = 'q.db'", &[], &["`database.path`", "`q.db` is relative", "absolute"]),
        ("[database]\nmax_waiting_bytes = 1", &[], &["`database.max_waiting_bytes`", "choose 65536 to"]),
        ("[log]\nlevel = 'iolaus=loud'", &[], &["`log.level`", "no log filter"]),
        ("", &[("IOLAUS_LOG", "iolaus=loud")], &["`log.level`", "the variable IOLAUS_LOG"]),
        ("[activities.publish_preflight]\nheartbeat = '0s'", &[], &["`activities.publish_preflight.heartbeat`", "mine.toml"]),
        ("worker = 3", &[], &["`worker`", "mine.toml"]),
        ("[worker]\n[worker.slots_work]\nx = 1", &[], &["`worker.slots_work.x`", "no such key"]),
        ("[worker", &[], &["mine.toml", "line 1"]),
        (
            "",
            &[("IOLAUS_LOG", "debugg")],
            &["`log.level`", "the variable IOLAUS_LOG", "`debugg`", "off, error, warn, info, debug, trace"],
        ),
        ("", &[("RUST_LOG", "warn,inof")], &["the variable RUST_LOG", "`inof`"]),
        ("[log]\nformat = 'xml'", &[], &["`log.format`", "mine.toml", "`xml` is not one of auto, text, json"]),
        ("", &[("IOLAUS_LOG__FORMAT", "xml")], &["the variable IOLAUS_LOG__FORMAT", "`xml` is not one of auto, text, json"]),
        ("[host]\nkind = 'redis'", &[], &["`redis` is not one of embedded, temporal"]),
        ("[tenants.acme]\ngeneration = 'arog'", &[], &["`arog` is not one of auto, argo, native"]),
        ("[limits.tenants.nope]\nmax_running = 1", &[], &["`limits.tenants.nope`", "mine.toml", "no such tenant", "default"]),
        ("[worker]\nstall_after = 5", &[], &["`worker.stall_after`", "mine.toml", "`5` has no unit", "ms, s, m, h, d"]),
        ("", &[("IOLAUS_WORKER__STALL_AFTER", "5")], &["the variable IOLAUS_WORKER__STALL_AFTER", "`5` has no unit"]),
        (
            "",
            &[("HTTPS_PROXY", "gar%bage")],
            &["the variable HTTPS_PROXY", "no address of a proxy", "http://proxy.example.com:3128"],
        ),
        ("", &[("http_proxy", "::")], &["the variable http_proxy"]),
        (
            "[tenants.acme]\nbase_url = 'acme.atlan.com'",
            &[],
            &["`tenants.acme.base_url`", "mine.toml", "has no scheme", "https://"],
        ),
        ("", &[("ATLAN_BASE_URL", "acme.atlan.com")], &["the variable ATLAN_BASE_URL", "has no scheme"]),
        ("", &[("ATLAN_BASE_URL", "http://acme.atlan.com")], &["the variable ATLAN_BASE_URL", "unencrypted", "allow_cleartext"]),
        ("[metrics]\nmax_tenants = 100001", &[], &["`metrics.max_tenants`", "mine.toml", "choose 0 to 100000"]),
        ("[http]\nmax_connections = 1", &[], &["`http.max_connections`", "mine.toml", "choose 8 to 65536"]),
        ("[http]\nheader_timeout = '0s'", &[], &["`http.header_timeout`", "choose 100ms to 1h"]),
    ];
    for (toml, pairs, parts) in rows {
        let text = refused(toml, pairs);
        for part in *parts {
            assert!(text.contains(part), "{toml:?} {pairs:?}: `{part}` is missing in:\n{text}");
        }
    }
}

#[test]
fn a_proxy_variable_is_refused_without_its_value_and_an_allowed_one_is_accepted() {
    let text = refused("", &[("HTTPS_PROXY", "http://user:hush@pro%xy")]);
    assert!(text.contains("HTTPS_PROXY") && !text.contains("hush"), "{text}");
    for fine in ["http://user:hush@proxy.example.com:3128", "proxy.example.com:3128", ""] {
        assert!(load("", &[("HTTPS_PROXY", fine)]).is_ok(), "{fine}");
    }
}

#[test]
fn a_variable_or_a_key_of_ten_thousand_parts_is_refused_at_once_and_shown_in_part() {
    for parts in [10, 10_000, 50_000] {
        let name = format!("IOLAUS_{}", vec!["A"; parts].join("__"));
        let text = refused("", &[(&name, "x")]);
        assert!(text.contains("the variable IOLAUS_A__A__") && text.contains("more than 8 parts") && text.len() < 400, "{text}");
        let lenient = Config::load_leniently(None, &environment(&[(&name, "x"), ("IOLAUS_WORKER__SLOTS_WORK", "8")]));
        let lenient = lenient.expect("the rest is used");
        assert_eq!((lenient.problems.len(), lenient.worker.slots_work), (1, 8));
    }
    for toml in [format!("{} = 1", vec!["a"; 50_000].join(".")), format!("[{}]", vec!["a"; 50_000].join("."))] {
        let text = refused(&toml, &[]);
        assert!(text.contains("mine.toml") && text.contains("line 1: a key has more than 256 parts"), "{text}");
    }
    // What is less deep the parser refuses.
    let deep = format!("{} = 1", vec!["a"; 200].join("."));
    assert!(refused(&deep, &[]).contains("mine.toml"));
    let long = refused(&format!("# {}", "x".repeat(1 << 20)), &[]);
    assert!(long.contains("mine.toml") && long.contains("longer than 1048576 bytes"), "{long}");
    let long = refused("", &[(&format!("IOLAUS_{}", "A".repeat(100_000)), "x")]);
    assert!(long.contains("longer than 256 bytes") && long.len() < 400, "{long}");
}

#[test]
fn a_build_without_the_temporal_host_says_so_when_it_is_asked_for() {
    let (problem, hint) = super::check::missing_host(HostKind::Temporal, false).unwrap();
    assert!(problem.contains("no temporal host") && hint.contains("--features temporal"));
    for (kind, has_temporal) in [(HostKind::Temporal, true), (HostKind::Embedded, false), (HostKind::Embedded, true)] {
        assert_eq!(super::check::missing_host(kind, has_temporal), None);
    }
    assert_eq!(load("[host]\nkind = 'temporal'", &[]).is_ok(), cfg!(feature = "temporal"));
}

#[test]
fn what_is_said_of_a_cluster_is_checked() {
    for (section, key) in [
        ("task_queue = ''", "temporal.task_queue"),
        ("pollers = 0", "temporal.pollers"),
        ("heartbeat_timeout = '10ms'", "temporal.heartbeat_timeout"),
        ("tls_cert_file = '/a.pem'", "temporal.tls_key_file"),
        ("build_id = 'v1'", "temporal.build_id"),
        ("tenant_attribute = 'a b'", "temporal.tenant_attribute"),
        ("adress = 'x:1'", "temporal.adress"),
    ] {
        let refusal = refused(&format!("[temporal]\n{section}"), &[]);
        assert!(refusal.contains(key), "{section}: {refusal}");
    }
}

#[test]
fn no_refusal_shows_a_secret() {
    for toml in [
        "[tenants.default]\napi_key = \"hush\nx = 1",
        "[tenants.default]\napi_keys = 'hush'",
        "[tenants.default]\napi_key = {hush = 'hush'}",
    ] {
        let text = refused(toml, &[]);
        assert!(!text.replace("api_key.hush", "").contains("hush"), "{text}");
    }
    let config = load("[tenants.default]\napi_key = 'hush'", &[]).expect("it loads");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn variables_of_kubernetes_for_a_service_named_iolaus_are_no_keys() {
    let service = [
        ("IOLAUS_SERVICE_HOST", "10.0.0.1"),
        ("IOLAUS_PORT", "tcp://10.0.0.1:80"),
        ("IOLAUS_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("IOLAUS_SERVICE_PORT_HTTP", "80"),
    ];
    assert!(load("", &service).is_ok());
}

#[test]
fn a_value_that_is_not_utf_8_is_refused_by_its_variable() {
    let broken = vec![("HOME".into(), "/h".into()), ("IOLAUS_LOG".into(), OsString::from_vec(vec![0xff]))];
    let error = Config::load(None, &broken).expect_err("it is refused");
    assert!(error.to_string().contains("IOLAUS_LOG") && error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_missing_file_is_an_error_only_if_somebody_named_it() {
    let error = Config::load(Some("/nowhere/iolaus.toml".into()), &environment(&[])).expect_err("it is refused");
    assert!(error.to_string().contains("/nowhere/iolaus.toml"));
    assert!(Config::load(None, &environment(&[("IOLAUS_CONFIG", "/nowhere/iolaus.toml")])).is_err());
    assert!(Config::load(None, &environment(&[("XDG_CONFIG_HOME", "/nowhere")])).is_ok());
}

#[test]
fn the_file_of_the_configuration_directory_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("iolaus")).expect("made");
    let file = directory.path().join("iolaus/config.toml");
    std::fs::write(&file, "[worker]\nslots_work = 7").expect("written");
    let home = directory.path().to_str().expect("text");
    let config = Config::load(None, &environment(&[("XDG_CONFIG_HOME", home)])).expect("it loads");
    assert_eq!((config.worker.slots_work, config.file), (7, Some(file)));
}

#[test]
fn without_a_home_the_database_needs_a_path() {
    let error = Config::load(None, &Vec::new()).expect_err("it is refused");
    assert!(error.hint.contains("IOLAUS_DATABASE__PATH"), "{}", error.hint);
}

/// The fields that a type with `deny_unknown_fields` lists when it meets one that it does not know.
fn fields<T: serde::de::DeserializeOwned>(section: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<T>(r#"{"?": 0}"#).err().expect("it is refused").to_string();
    let listed = error.split_once("expected ").expect("a list").1;
    listed.split('`').skip(1).step_by(2).map(|field| format!("{section}.{field}")).collect()
}

#[test]
fn every_key_stands_in_the_reference_and_the_reference_has_no_other() {
    let typed: BTreeSet<String> = [
        fields::<HostConfig>("host"),
        fields::<DatabaseConfig>("database"),
        fields::<TemporalConfig>("temporal"),
        fields::<WorkerConfig>("worker"),
        fields::<TenantSettings>("tenants.*"),
        fields::<OptionOverrides>("activities.*"),
        fields::<HttpConfig>("http"),
        fields::<MetricsConfig>("metrics"),
        fields::<LogConfig>("log"),
        fields::<Throttle>("limits.activities.*"),
        fields::<Throttle>("limits.tenants.*"),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(*super::load::known_keys(), typed);
}

#[test]
fn the_reference_with_every_key_set_loads() {
    let all: Vec<String> = DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key.to_owned(),
            _ => line.to_owned(),
        })
        .filter(|line| !["api_key", "oauth_client", "keycloak_client"].iter().any(|way| line.starts_with(way)))
        .collect();
    let config = load(&all.join("\n"), &[]).expect("it loads");
    assert_eq!(config.activities.len(), 4);
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_tenant_client() {
    let config = Config::load(None, &environment(&[])).expect("it loads");
    assert_eq!(format!("{:?}", config.tenants["default"]), format!("{:?}", TenantSettings::default()));
}

#[test]
fn limits_of_what_is_not_there_or_out_of_range_are_refused_by_key() {
    let home = ("HOME", "/home/somebody");
    let refused = |variable, value| Config::load(None, &environment(&[home, (variable, value)])).expect_err("it is refused");
    let of_nobody = refused("IOLAUS_LIMITS__TENANTS__NOBODY__MAX_RUNNING", "2");
    assert_eq!(of_nobody.key.as_deref(), Some("limits.tenants.nobody"), "{of_nobody:?}");
    let negative = refused("IOLAUS_LIMITS__ACTIVITIES__WORKFLOW_RERUN__MAX_STARTS_PER_SECOND", "-1");
    assert_eq!(negative.key.as_deref(), Some("limits.activities.workflow_rerun.max_starts_per_second"), "{negative:?}");
    let unknown = refused("IOLAUS_LIMITS__ACTIVITIES__WORKFLOW_RERUN__MAX_RUNING", "1");
    assert!(unknown.hint.contains("max_running"), "{unknown:?}");
    let set = Config::load(None, &environment(&[home, ("IOLAUS_LIMITS__TENANTS__DEFAULT__MAX_STARTS_PER_SECOND", "0.5")]))
        .expect("it loads");
    assert!((set.limits.tenants["default"].max_starts_per_second - 0.5).abs() < f64::EPSILON);
}

#[test]
fn every_mistake_of_a_configuration_is_named_and_the_rest_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let lenient = |toml: &str, pairs: &[(&str, &str)]| {
        let file = directory.path().join("mine.toml");
        std::fs::write(&file, toml).expect("written");
        let config = Config::load_leniently(Some(file), &environment(pairs)).expect("something can be used");
        let keys = config.problems.iter().map(|problem| problem.key.clone().unwrap_or_default()).collect::<Vec<_>>();
        (config, keys)
    };
    let toml = "[wrker]\nslots = 1\n[worker]\nslots_work = 0\nslots_waits = 7\n[tenants.acme]\nbase_url = 'https://h'\ngeneration = 'old'\n";
    let (config, mut keys) = lenient(toml, &[("IOLAUS_LOG__FORMAT", "xml"), ("IOLAUS_DATABASE__RETENTION", "1s")]);
    keys.sort();
    assert_eq!(keys, ["database.retention", "log.format", "tenants.acme.generation", "worker.slots_work", "wrker.slots"]);
    assert_eq!((config.worker.slots_work, config.worker.slots_waits), (32, 7));
    assert_eq!(config.tenant("acme").expect("it is there").base_url, "https://h");

    let (config, keys) = lenient("no toml at all", &[("IOLAUS_WORKER__SLOTS_WORK", "8")]);
    assert_eq!((config.worker.slots_work, keys.len(), config.file), (8, 1, None));
    let (config, keys) = lenient("", &[]);
    assert_eq!((config.problems.len(), keys.len()), (0, 0));
    let absent = Config::load_leniently(Some("/nowhere/mine.toml".into()), &environment(&[])).expect("the defaults");
    assert!(absent.problems.len() == 1 && absent.problems[0].to_string().contains("/nowhere/mine.toml"));
    let homeless = Config::load_leniently(None, &Environment::new()).expect_err("there is no place for a queue");
    assert_eq!(homeless.key.as_deref(), Some("database.path"));
}
