//! OAuth clients from their creation to their purge: what is sent, what is printed, and where a secret never stands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use iolaus::sandbox::{Fault, SandboxOptions};
use serde_json::{Value, json};

use super::harness::{Place, Ran};
use crate::support::watchdog::until;

const CREATE: [&str; 6] = ["oauth-clients", "create", "--name", "ci", "--role", "Admin"];

fn place() -> Place {
    Place::with_tenant(SandboxOptions::default())
}

fn create(place: &Place, more: &[&str]) -> Ran {
    place.iolaus(CREATE.iter().chain(more))
}

fn fault(place: &Place, fault: Value) {
    place.sandbox().add_fault(serde_json::from_value::<Fault>(fault).expect("a fault"));
}

/// What was really applied, by kind.
fn applied(place: &Place) -> Vec<String> {
    let effects = serde_json::to_value(place.sandbox().effects()).expect("JSON");
    effects.as_array().into_iter().flatten().map(|effect| effect["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// What differs from run to run.
fn filtered(snapshot: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"oauth-client-[0-9a-f]{32}", "[client]");
    settings.add_filter(r#""client_secret":"[0-9a-f]{32}""#, r#""client_secret":"[secret]""#);
    settings.add_filter(r"\b[0-9a-f]{32}\b", "[secret]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]");
    settings.add_filter(r"by service-account-apikey-[0-9a-f-]+", "by [us]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[address]");
    settings.bind(snapshot);
}

#[test]
fn a_client_created_so_is_at_once_our_own_login_until_it_is_purged() {
    let mut place = place();
    let ran = create(&place, &["--description", "for CI", "--persona", "Data Stewards"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    filtered(|| {
        insta::assert_snapshot!(ran.stdout, @r#"{"client_id":"[client]","display_name":"ci","created_by":"service-account-apikey-11111111-2222-3333-4444-555555555555","created_at":"[time]","client_secret":"[secret]"}"#);
    });
    let created = ran.json();
    let (client_id, secret) = (text(&created, "client_id").to_owned(), text(&created, "client_secret").to_owned());
    let sent = place.sandbox().requests().pop().expect("a request").body;
    let expected =
        json!({"displayName": "ci", "description": "for CI", "role": "$admin", "personaQNs": ["default/xS2hdJ7TWUqhVcZHC3zoVN"]});
    assert_eq!(sent, expected);

    place.set("ATLAN_API_KEY", "");
    place.set("ATLAN_OAUTH_CLIENT_ID", client_id.as_str());
    place.set("ATLAN_OAUTH_CLIENT_SECRET", secret.as_str());
    assert_eq!(place.run("workflows find snowflake").code, 0);
    let asked = place.sandbox().requests().pop().expect("a request");
    assert_eq!(asked.principal, Some(format!("service-account-{client_id}")));

    let shown = place.run(&format!("oauth-clients get {client_id}")).json();
    assert_eq!(
        (text(&shown, "role"), text(&shown, "created_by")),
        ("$admin", "service-account-apikey-11111111-2222-3333-4444-555555555555")
    );
    assert_eq!(
        place.run(&format!("oauth-clients purge {client_id} --yes")).json(),
        json!({"client_id": client_id, "purged": true})
    );
    let ran = place.run("workflows find snowflake");
    assert!(ran.code == 3 && !format!("{ran:?}").contains(&secret), "{ran:?}");
    assert_eq!(applied(&place), ["oauth_client_created", "oauth_client_purged"]);
}

#[test]
fn people_see_a_table() {
    let place = place();
    let ran = create(&place, &["--output", "text"]);
    filtered(|| {
        insta::assert_snapshot!(ran.stdout, @r#"
    OAUTH CLIENT
    client id     [client]
    name          ci
    created       [time]
    created by    service-account-apikey-11111111-2222-3333-4444-555555555555
    secret        [secret]
    "#);
    });
}

#[test]
fn a_secret_goes_to_a_new_file_of_its_owner_alone_and_nowhere_else() {
    let mut place = place();
    place.set("IOLAUS_LOG", "trace");
    let file = place.file("directory", "").with_file_name("ci.secret");
    let path = file.to_str().expect("a path");
    let ran = create(&place, &["--secret-file", path]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let created = ran.json();
    assert_eq!((text(&created, "secret_file"), created.get("client_secret")), (path, None));
    let secret = fs::read_to_string(&file).expect("it is there");
    assert_eq!((secret.trim().len(), fs::metadata(&file).expect("it is there").permissions().mode() & 0o777), (32, 0o600));
    assert!(ran.stderr.contains("oauth-clients") && !format!("{ran:?}").contains(secret.trim()), "{ran:?}");
    assert!(!place.database().exists(), "a secret enters no database");

    for other in [path, "/no/such/directory/ci.secret"] {
        let ran = create(&place, &["--secret-file", other]);
        assert!(ran.code == 2 && ran.stderr.contains(&format!("{other} cannot be created")), "{ran:?}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), secret);
    assert_eq!(applied(&place), ["oauth_client_created"], "the file is tried before anything is sent");
}

#[test]
fn a_file_that_has_no_room_for_a_secret_is_refused_before_anything_is_created() {
    let place = place();
    // A limit of the file size stands for a full disk.
    let line = "trap '' XFSZ; ulimit -f 0; exec $IOLAUS oauth-clients create --name ci --role Admin --secret-file ci.secret";
    let ran = place.shell(line, "");
    assert!(ran.code == 2 && ran.stderr.contains("ci.secret cannot be created: File too large"), "{ran:?}");
    assert!(applied(&place).is_empty() && place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn no_file_is_left_of_a_creation_that_was_refused_or_lost() {
    let place = place();
    let file = place.file("directory", "").with_file_name("ci.secret");
    let path = file.to_str().expect("a path");
    for kind in [
        json!({"kind": "status", "status": 400}),
        json!({"kind": "cut_before_applying"}),
        json!({"kind": "garbage_after_applying"}),
    ] {
        fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": kind}));
        assert_eq!(create(&place, &["--secret-file", path]).code, 3, "{kind}");
        assert!(!file.exists(), "{kind}");
    }
}

#[test]
fn a_secret_that_stdout_does_not_take_is_no_success() {
    let place = place();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut child = place.spawn("oauth-clients create --name ci --role Admin", Stdio::from(full));
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert_eq!(applied(&place), ["oauth_client_created"]);
}

#[test]
fn an_unknown_role_or_persona_makes_no_post_and_tells_what_there_is() {
    let place = place();
    let ran = place.run("oauth-clients create --name ci --role king");
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant default has no role "king"
    hint: the roles are Admin, Admins (Connections), Guest, Member
    "#);
    let ran = create(&place, &["--persona", "Readers"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant default has 2 personas named "Readers"
    hint: choose one by its qualified name: --persona default/rEaDeRs1TWUqhVcZHC3zoV or --persona default/rEaDeRs2TWUqhVcZHC3zoV
    "#);
    let ran = create(&place, &["--persona", "Nobody"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant default has no persona named "Nobody"
    hint: give its name as it is written there, or its qualified name: --persona default/…
    "#);
    let posts = place
        .sandbox()
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST" && request.target.contains("/oauth-clients"));
    assert_eq!(posts.count(), 0);
    assert_eq!(create(&place, &["--persona", "default/rEaDeRs2TWUqhVcZHC3zoV"]).code, 0);
}

#[test]
fn a_persona_that_is_named_by_its_qualified_name_is_checked_before_anything_is_created() {
    let place = place();
    let ran = create(&place, &["--persona", "default/nope"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant default has no persona with the qualified name "default/nope"
    hint: give the persona's name as it is written there: --persona NAME
    "#);
    assert!(!place.sandbox().requests().iter().any(|request| request.method == "POST"), "nothing is created");
}

#[test]
fn a_limit_is_a_maximum_of_clients_in_all_and_without_one_none_is_left_out() {
    let place = place();
    let record = |n: usize| json!({"clientId": format!("oauth-client-{n}"), "displayName": format!("c {n}")});
    let serve = |from: usize, size: usize, to: usize| {
        let records: Vec<_> = (from..to.min(from + size)).map(record).collect();
        let body = json!({"totalRecord": 450, "filterRecord": 450, "records": records});
        let action = json!({"kind": "status", "status": 200, "body": body});
        fault(&place, json!({"path": format!("offset={from}&limit={size}&"), "action": action}));
    };
    let listed = |ran: &Ran| {
        let pages = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        pages.map(|page| page["oauth_clients"].as_array().expect("a list").len()).sum::<usize>()
    };
    (0..450).step_by(100).for_each(|from| serve(from, 100, 450));
    let ran = place.run("oauth-clients list");
    assert_eq!((ran.code, listed(&ran)), (0, 450));
    assert_eq!(ran.stderr, "450 of 450 OAuth clients of tenant default are shown\n");

    serve(0, 20, 450);
    serve(20, 10, 450);
    let ran = place.run("oauth-clients list --limit 30 --page-size 20 --sort -displayName");
    assert_eq!((ran.code, listed(&ran)), (0, 30));
    assert_eq!(ran.stderr, "30 of 450 OAuth clients of tenant default are shown; --offset 30 shows more\n");
    assert!(place.sandbox().requests().pop().is_some_and(|request| request.target.ends_with("&sort=-displayName")));

    // A tenant that gives fewer than it says there are.
    serve(0, 100, 60);
    serve(60, 100, 60);
    let ran = place.run("oauth-clients list");
    assert_eq!((ran.code, listed(&ran)), (3, 60));
    assert!(ran.stderr.contains("--offset 60 shows more") && ran.stderr.contains("fewer clients than it says"), "{ran:?}");
}

#[test]
fn a_lost_answer_names_the_client_that_may_be_there_and_the_command_that_purges_it() {
    let place = place();
    let earlier = create(&place, &[]).json();
    fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": {"kind": "garbage_after_applying"}}));
    // It is not older than the clocks may disagree, and so would be taken for the new one by its name.
    place.run(&format!("oauth-clients update {} --name older", text(&earlier, "client_id")));
    let ran = create(&place, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    filtered(|| {
        insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant `default` gave no readable answer to oauth_clients.create (200); possibly created, with a secret that is lost: [client] (created [time] by [us]) (tenant.unreadable)
    hint: iolaus oauth-clients purge [client]
    "#);
    });
    let command = ran.stderr.lines().find_map(|line| line.strip_prefix("hint: iolaus ")).expect("a command").to_owned();
    assert_eq!(place.run(&format!("{command} --yes")).code, 0);
    assert_eq!(applied(&place), ["oauth_client_created", "oauth_client_updated", "oauth_client_created", "oauth_client_purged"]);

    for (kind, hint) in [("cut_after_applying", "purge oauth-client-"), ("cut_before_applying", "list")] {
        fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": {"kind": kind}}));
        let ran = place.run(&format!("oauth-clients create --name {kind} --role Admin"));
        assert!(ran.code == 3 && ran.stderr.contains(&format!("hint: iolaus oauth-clients {hint}")), "{ran:?}");
        assert_eq!(applied(&place).len(), 5, "the first of the two alone is applied");
    }
}

#[test]
fn a_page_in_place_of_an_answer_says_that_it_may_have_been_done_and_how_to_look_or_to_clean_up() {
    for status in [401, 403, 404, 429] {
        let place = place();
        let page = |apply: bool| json!({"kind": "web_page", "status": status, "apply": apply});
        fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": page(true)}));
        let ran = create(&place, &[]);
        assert!(ran.code == 3 && ran.stderr.contains("possibly created, with a secret that is lost"), "{ran:?}");
        let purge = ran.stderr.lines().find_map(|line| line.strip_prefix("hint: iolaus ")).expect("a command");
        assert!(purge.starts_with("oauth-clients purge oauth-client-"), "{purge}");

        fault(&place, json!({"method": "DELETE", "path": "/oauth-clients", "action": page(true)}));
        let ran = place.run(&format!("{purge} --yes"));
        assert!(ran.code == 3 && ran.stderr.contains("is purged is not known"), "{ran:?}");
        assert!(ran.stderr.contains("hint: iolaus oauth-clients get oauth-client-"), "{ran:?}");
        assert_eq!(applied(&place), ["oauth_client_created", "oauth_client_purged"], "each once, behind a page with {status}");

        fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": page(false)}));
        let ran = create(&place, &[]);
        assert!(ran.code == 3 && ran.stderr.contains("hint: iolaus oauth-clients list"), "{ran:?}");
        assert_eq!(applied(&place).len(), 2);
    }
}

#[test]
fn several_that_a_lost_answer_may_have_left_are_told_apart_and_none_is_offered_for_purging() {
    let mut place = place();
    place.set("IOLAUS_TENANTS__DEFAULT__CLOCK_TOLERANCE", "1m");
    assert_eq!(create(&place, &[]).code, 0);
    fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": {"kind": "cut_after_applying"}}));
    let ran = create(&place, &[]);
    assert!(ran.code == 3 && ran.stderr.contains("one of these was possibly created"), "{ran:?}");
    assert!(ran.stderr.matches("(created 20").count() == 2 && ran.stderr.ends_with("hint: iolaus oauth-clients list\n"), "{ran:?}");
}

#[test]
fn an_interrupted_creation_waits_for_the_answer_that_holds_the_secret() {
    let mut place = place();
    place.set("IOLAUS_TENANTS__DEFAULT__REQUEST_TIMEOUT", "5s");
    fault(&place, json!({"method": "POST", "path": "/oauth-clients", "action": {"kind": "hang"}}));
    let mut running = place.start("oauth-clients create --name ci --role Admin");
    until("the creation", || place.sandbox().requests().iter().any(|request| request.method == "POST"));
    running.ask_to_stop();
    running.until("its answer holds the secret");
    let ran = running.end();
    assert!(ran.code == 3 && ran.stderr.contains("hint: iolaus oauth-clients list"), "{ran:?}");
}

#[test]
fn pages_are_printed_as_they_are_fetched_and_the_total_is_told() {
    let place = place();
    create(&place, &[]);
    create(&place, &[]);
    let ran = place.run("oauth-clients list --page-size 2 --sort createdAt");
    let pages: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<Vec<_>> = pages
        .iter()
        .map(|page| page["oauth_clients"].as_array().expect("a list").iter().map(|client| text(client, "display_name")).collect())
        .collect();
    assert_eq!((names, &pages[1]["total"], &pages[1]["offset"]), (vec![vec!["sandbox", "ci"], vec!["ci"]], &json!(3), &json!(2)));
    assert_eq!(ran.stderr, "3 of 3 OAuth clients of tenant default are shown\n");
    let targets: Vec<_> = place.sandbox().requests().into_iter().map(|request| request.target).collect();
    let list = |offset: u8| format!("/api/service/oauth-clients?count=true&offset={offset}&limit=2&sort=createdAt");
    assert_eq!(targets[targets.len() - 2..], [list(0), list(2)]);
    let empty = place.run("oauth-clients list --offset 3");
    assert_eq!((empty.code, &empty.json()["oauth_clients"]), (0, &json!([])));
    let newest = place.run("oauth-clients list --limit 1 --sort -createdAt --output text");
    assert!(newest.stdout.starts_with("CLIENT ID") && newest.stdout.contains("$admin"), "{newest:?}");
}

#[test]
fn an_update_changes_what_is_given_and_needs_something_to_change() {
    let place = place();
    let shown = place.run("oauth-clients update oauth-client-sandbox --description nightly").json();
    assert_eq!((text(&shown, "display_name"), text(&shown, "description")), ("sandbox", "nightly"));
    let sent = place.sandbox().requests().pop().expect("a request");
    assert_eq!((sent.method.as_str(), sent.body), ("PUT", json!({"description": "nightly"})));
    assert_eq!(place.run("oauth-clients update oauth-client-sandbox").code, 2);
    let ran = place.run("oauth-clients get oauth-client-none");
    assert!(ran.code == 3 && ran.stderr.contains("hint: iolaus oauth-clients list"), "{ran:?}");
}

#[test]
fn a_purge_without_anybody_to_ask_is_refused_and_nothing_is_sent() {
    let place = place();
    let ran = place.run("oauth-clients purge oauth-client-sandbox");
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: purging oauth-client-sandbox cannot be undone, and there is no terminal to ask at
    hint: confirm it with --yes
    "#);
    assert!(place.sandbox().requests().is_empty());
}

#[test]
fn a_person_at_a_terminal_is_asked_and_only_a_clear_yes_purges() {
    let place = place();
    // It makes a terminal, and ends as the program in it does.
    let line = "exec script --quiet --return --echo never --command \"$IOLAUS oauth-clients purge oauth-client-sandbox\" /dev/null";
    for (said, code) in [("n\n", 4), ("\n", 4), ("yes\n", 0)] {
        assert!(applied(&place).is_empty(), "before {said:?}");
        let ran = place.shell(line, said);
        assert_eq!(ran.code, code, "{ran:?}");
        if code == 0 {
            insta::assert_snapshot!(ran.stdout.replace('\r', ""), @r"
            sandbox (oauth-client-sandbox) of tenant default and all its tokens will be gone.
            This cannot be undone. Purge it? [y/N] oauth-client-sandbox is purged
            ");
        }
    }
    assert_eq!(applied(&place), ["oauth_client_purged"]);
}

#[test]
fn who_may_not_manage_clients_is_told_what_is_needed() {
    let mut place = place();
    place.set("ATLAN_API_KEY", "sandbox-member");
    let ran = create(&place, &[]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("joe needs the right to manage OAuth clients"), "{ran:?}");
    assert!(applied(&place).is_empty());
}
