//! What the commands about a tenant show of its workflows, runs, tokens and ourselves, and the one effect among them.

use std::time::Duration;

use iolaus::sandbox::{Fault, Generation, SandboxOptions};
use serde_json::{Value, json};

use super::harness::Place;

const REDSHIFT: &str = "atlan-redshift-1684500800";
const CI_TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";

fn place() -> Place {
    Place::with_tenant(SandboxOptions::default())
}

fn native() -> Place {
    Place::with_tenant(SandboxOptions { generation: Generation::Native, ..SandboxOptions::default() })
}

/// A tenant whose one seeded run in progress does not end during a test.
fn busy(generation: Generation) -> Place {
    Place::with_tenant(SandboxOptions { generation, running: Duration::from_secs(3600), ..SandboxOptions::default() })
}

/// The next answer at this path, whatever is asked.
fn answer(place: &Place, path: &str, body: &Value) {
    let action = json!({"kind": "status", "status": 200, "body": body});
    place.sandbox().add_fault(serde_json::from_value::<Fault>(json!({"path": path, "action": action})).expect("a fault"));
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|row| row["name"].as_str().expect("a name")).collect()
}

/// What differs from run to run.
fn filtered(snapshot: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[address]");
    settings.bind(snapshot);
}

#[test]
fn all_workflows_are_listed_and_a_limit_says_what_it_leaves_out() {
    let place = place();
    let ran = place.run("workflows list --output text");
    insta::assert_snapshot!(ran.stdout, @r#"
    NAME                                       PACKAGE                          CREATED                   CREATOR
    atlan-tableau-1684500901                   @atlan/tableau                   2023-05-19T12:55:01.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    atlan-tableau-1684500900                   @atlan/tableau                   2023-05-19T12:55:00.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    atlan-redshift-1684500800                  @atlan/redshift                  2023-05-19T12:53:20.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    atlan-postgres-1684500700                  @atlan/postgres                  2023-05-19T12:51:40.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    atlan-snowflake-miner-1684500600           @atlan/snowflake-miner           2023-05-19T12:50:00.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    atlan-snowflake-1684500500                 @atlan/snowflake                 2023-05-19T12:48:20.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    csa-api-token-connection-admin-1684500411  @csa/api-token-connection-admin  2023-05-19T12:46:51.000Z  8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    "#);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let ran = place.run("workflows list --limit 2");
    let listed = ran.json();
    assert_eq!(
        (listed["workflows"].as_array().map(Vec::len), &listed["total"], &listed["more"]),
        (Some(2), &json!(7), &json!(true))
    );
    assert_eq!(ran.stderr, "2 of 7 workflows are shown; --limit shows more\n");
}

#[test]
fn the_apps_of_a_native_tenant_are_listed_by_cursor_with_their_slugs() {
    let mut place = native();
    let ran = place.run("workflows list --output text");
    insta::assert_snapshot!(ran.stdout, @r#"
    NAME               SLUG                        PACKAGE            CREATED                   CREATOR
    tableau-sales      tableau-sales-6ce1a94f      atlan-tableau      2026-01-01T06:00:00.000Z  jane
    tableau-sales      tableau-sales-0b6f8d23      atlan-tableau      2026-01-01T05:00:00.000Z  jane
    redshift-dwh       redshift-dwh-9a4be150       redshift-crawler   2026-01-01T04:00:00.000Z  jane
    postgres-crm       postgres-crm-18c2d9e6       postgres-crawler   2026-01-01T03:00:00.000Z  jane
    snowflake-queries  snowflake-queries-77e3b0f4  snowflake-miner    2026-01-01T02:00:00.000Z  jane
    snowflake-prod     snowflake-prod-5d01c7aa     snowflake-crawler  2026-01-01T01:00:00.000Z  jane
    bq-prod            bq-prod-3f9ab2c1            bigquery-crawler   2026-01-01T00:00:00.000Z  jane
    "#);
    place.set("IOLAUS_TENANTS__DEFAULT__GENERATION", "native");
    let listed = place.run("workflows list").json();
    assert_eq!((listed["workflows"].as_array().map(Vec::len), &listed["more"]), (Some(7), &json!(false)));
    assert_eq!(listed["workflows"][0]["kind"], "app");
    let cut = place.run("workflows list --limit 3");
    assert_eq!(cut.stderr, "3 workflows are shown, and there are more; --limit shows more\n");

    let app = |slug: &str| json!({"slug": slug, "name": "n", "version": 1});
    answer(&place, "/v1/app?limit=50&cursor=", &json!({"workflows": [app("b")], "has_more": false}));
    answer(
        &place,
        "/v1/app?limit=50",
        &json!({"workflows": [app("a"), {"name": "no slug"}], "has_more": true, "next_cursor": "x y"}),
    );
    let ran = place.run("workflows list");
    assert_eq!(ran.json()["workflows"].as_array().map(Vec::len), Some(2));
    assert_eq!(ran.stderr, "left out 1 workflow without a name\n");
    let targets: Vec<_> = place.sandbox().requests().into_iter().map(|request| request.target).collect();
    assert!(targets.last().is_some_and(|target| target.ends_with("&cursor=x%20y")), "{targets:?}");
}

#[test]
fn one_kind_that_cannot_be_asked_for_does_not_hide_the_other() {
    let place = place();
    let refused = json!({"path": "/v1/app", "action": {"kind": "status", "status": 422}});
    place.sandbox().add_fault(serde_json::from_value::<Fault>(refused).expect("a fault"));
    let ran = place.run("workflows list");
    assert_eq!((ran.code, ran.json()["workflows"].as_array().map(Vec::len)), (3, Some(7)), "{ran:?}");
    assert!(ran.stderr.contains("apps.list"), "{ran:?}");
}

#[test]
fn a_workflow_is_found_by_every_way_to_write_its_package() {
    let place = place();
    for package in ["csa-api-token-connection-admin", "@csa/api-token-connection-admin"] {
        let found = place.run(&format!("workflows find {package}")).json();
        assert_eq!(names(&found), ["csa-api-token-connection-admin-1684500411"], "{package}");
        assert_eq!(found[0]["last_run"]["phase"], "Succeeded");
    }
    assert_eq!(names(&place.run("workflows find tableau --max-results 1").json()), ["atlan-tableau-1684500901"]);
    assert_eq!(place.run("workflows find tableau --max-results 1").stderr, "1 of 2 are shown; --max-results shows more\n");
}

#[test]
fn a_search_that_finds_nothing_says_so_and_is_no_failure() {
    let place = place();
    let ran = place.run("workflows find snowflaek");
    assert_eq!((ran.code, ran.json()), (0, json!([])));
    assert_eq!(ran.stderr, "tenant default has no workflow of package @atlan/snowflaek; iolaus workflows list shows all\n");
    let ran = place.run("tokens find nothing");
    assert_eq!((ran.code, &ran.json()["api_tokens"]), (0, &json!([])));
    assert_eq!(ran.stderr, "tenant default has no API token named \"nothing\"\n");
    let ran = place.run("runs list --workflow atlan-tableau-1684500900 --status failed");
    assert_eq!((ran.code, &ran.json()["runs"]), (0, &json!([])));
    assert_eq!(ran.stderr, "tenant default has no such run of workflow atlan-tableau-1684500900 in phase Failed\n");
}

#[test]
fn apps_are_found_by_the_type_that_they_are_made_of() {
    let place = native();
    let found = place.run("workflows find bigquery").json();
    assert_eq!((names(&found), &found[0]["slug"]), (vec!["bq-prod"], &json!("bq-prod-3f9ab2c1")));
    assert_eq!(found[0]["last_run"]["phase"], "Succeeded");
    assert_eq!(place.run("workflows find snowflake").json().as_array().map(Vec::len), Some(2), "the crawler and the miner");
}

#[test]
fn a_workflow_is_shown_with_its_last_runs() {
    let place = busy(Generation::Argo);
    filtered(|| {
        insta::assert_snapshot!(place.run(&format!("workflows show {REDSHIFT} --output text")).stdout, @r#"
    WORKFLOW
    name      atlan-redshift-1684500800
    package   @atlan/redshift
    created   [time]
    creator   8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    last run  atlan-redshift-1684500800-k2v9d
    phase     Running
    started   [time]
    finished

    RUN                              WORKFLOW                   PHASE    CREATED                   STARTED                   FINISHED  CREATOR
    atlan-redshift-1684500800-k2v9d  atlan-redshift-1684500800  Running  [time]  [time]            8c1e2d8a-1564-4e95-8b14-ea14522fcf61
    "#);
    });
    let shown = place.run(&format!("workflows show {REDSHIFT}")).json();
    assert_eq!(
        (names(&shown["runs"]), &shown["last_run"]["name"]),
        (vec!["atlan-redshift-1684500800-k2v9d"], &json!("atlan-redshift-1684500800-k2v9d"))
    );
    let never = place.run("workflows show atlan-tableau-1684500900").json();
    assert_eq!((&never["last_run"], &never["runs"]), (&Value::Null, &json!([])));
    let none = place.run("workflows show atlan-tableau-1");
    assert!(none.code == 3 && none.stderr.contains("hint: iolaus workflows find @atlan/tableau"), "{none:?}");
}

#[test]
fn an_app_is_shown_by_its_slug_with_its_last_runs() {
    let place = busy(Generation::Native);
    let shown = place.run("workflows show redshift-dwh-9a4be150").json();
    assert_eq!((&shown["slug"], &shown["runs"][0]["phase"]), (&json!("redshift-dwh-9a4be150"), &json!("Running")));
    assert_eq!(place.run("workflows show redshift-dwh").code, 3);
}

#[test]
fn runs_are_listed_by_workflow_status_and_time() {
    let place = busy(Generation::Argo);
    let listed = |options: &str| {
        let runs = place.run(&format!("runs list {options}")).json()["runs"].clone();
        names(&runs).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (redshift, grant) = ("atlan-redshift-1684500800-k2v9d", "csa-api-token-connection-admin-1684500411-t7s8b");
    assert_eq!(listed(""), [redshift, grant], "the newest first");
    assert_eq!(listed("--workflow csa-api-token-connection-admin-1684500411"), [grant]);
    assert_eq!(listed("--status running"), [redshift]);
    assert_eq!(listed("--status Running --status succeeded"), [redshift, grant]);
    assert_eq!(listed("--since 1h"), [redshift]);
    assert_eq!(listed("--since 2023-05-19T12:46:55Z --status Succeeded"), [grant]);
    let cut = place.run("runs list --limit 1 --output text");
    assert_eq!(cut.stderr, "1 of 2 runs are shown; --limit shows more\n");
    let ran = place.run("runs list --status nonsense");
    assert!(ran.code == 2 && ran.stderr.contains("TimedOut"), "{ran:?}");
    assert_eq!(place.run("runs list --since yesterday").code, 2);
}

#[test]
fn runs_of_apps_are_listed_by_what_the_index_shows() {
    let place = busy(Generation::Native);
    let listed = |options: &str| place.run(&format!("runs list {options}")).json()["runs"].as_array().expect("a list").len();
    assert_eq!((listed(""), listed("--status running"), listed("--since 1h")), (2, 1, 1));
    let runs = place.run("runs list --workflow bq-prod-3f9ab2c1").json()["runs"].clone();
    assert_eq!((&runs[0]["workflow"], &runs[0]["kind"], &runs[1]), (&json!("bq-prod-3f9ab2c1"), &json!("app"), &Value::Null));
}

#[test]
fn a_run_is_shown_with_its_end_and_one_that_is_not_there_leads_to_the_list() {
    let place = place();
    filtered(|| {
        let shown = place.run("runs show csa-api-token-connection-admin-1684500411-t7s8b --output text");
        insta::assert_snapshot!(shown.stdout, @r#"
        RUN
        name      csa-api-token-connection-admin-1684500411-t7s8b
        workflow  csa-api-token-connection-admin-1684500411
        phase     Succeeded
        created   [time]
        started   [time]
        finished  [time]
        creator   8c1e2d8a-1564-4e95-8b14-ea14522fcf61
        "#);
    });
    let ran = place.run("runs show nothing-at-all");
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    insta::assert_snapshot!(ran.stderr, @r#"
    error: tenant default has no run named nothing-at-all, or does not show it yet (run.not_found)
    hint: iolaus runs list
    "#);
}

#[test]
fn a_run_of_an_app_is_shown_with_what_its_steps_say() {
    let place = native();
    let run = place.run("execute workflow_rerun app=postgres-crm-18c2d9e6").json()["facts"]["run"].clone();
    let shown = place.run(&format!("runs show {}", run.as_str().expect("a run"))).json();
    assert_eq!((&shown["phase"], &shown["workflow"]), (&json!("Failed"), &json!("postgres-crm-18c2d9e6")));
    assert!(shown["message"].as_str().is_some_and(|message| message.contains("Connection refused")), "{shown}");
    assert!(shown["finished_at"].is_string() && shown["creator"].is_string(), "{shown}");
}

#[test]
fn a_run_is_stopped_once_it_is_confirmed_and_one_that_ended_is_left_alone() {
    for (generation, workflow) in [(Generation::Argo, REDSHIFT), (Generation::Native, "redshift-dwh-9a4be150")] {
        let place = busy(generation);
        let run = place.run(&format!("runs list --workflow {workflow}")).json()["runs"][0]["name"].clone();
        let run = run.as_str().expect("a run");
        let before = place.sandbox().requests().len();
        let refused = place.run(&format!("runs stop {run}"));
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
        assert_eq!(
            refused.stderr,
            format!(
                "error: stopping {run} needs a confirmation, and there is no terminal to ask at\nhint: confirm it with --yes\n"
            )
        );
        assert_eq!(place.sandbox().requests().len(), before, "nothing is sent before");

        let stopped = place.run(&format!("runs stop {run} --yes"));
        assert_eq!((stopped.code, stopped.json()), (0, json!({"run": run, "phase": "Running", "stop_requested": true})));
        assert_eq!(place.sandbox().effects().len(), 1);
        let again = place.run(&format!("runs stop {run} --yes")).json();
        assert_eq!((&again["stop_requested"], place.sandbox().effects().len()), (&json!(false), 1));
        let phase = place.run(&format!("runs show {run}")).json()["phase"].clone();
        assert_eq!(again["phase"], phase);
    }
}

#[test]
fn a_person_is_asked_before_a_run_is_stopped_and_only_a_clear_yes_stops_it() {
    let place = busy(Generation::Argo);
    let line = format!("exec script --quiet --return --echo never --command \"$IOLAUS runs stop {REDSHIFT}-k2v9d\" /dev/null");
    for (said, code) in [("n\n", 4), ("\n", 4), ("y\n", 0)] {
        assert!(place.sandbox().effects().is_empty(), "before {said:?}");
        let ran = place.shell(&line, said);
        assert_eq!(ran.code, code, "{ran:?}");
        if code == 0 {
            filtered(|| {
                insta::assert_snapshot!(ran.stdout.replace('\r', ""), @r#"
            run atlan-redshift-1684500800-k2v9d of atlan-redshift-1684500800 of tenant default is Running, started [time].
            Stop it? What it did so far is not undone. [y/N] the tenant was asked to stop atlan-redshift-1684500800-k2v9d; iolaus runs show atlan-redshift-1684500800-k2v9d shows its end
            "#);
            });
        }
    }
    assert_eq!(place.sandbox().effects().len(), 1);
}

#[test]
fn a_stop_whose_answer_is_lost_says_how_to_look() {
    let pages = [401, 403, 404, 429].map(|status| json!({"kind": "web_page", "status": status, "apply": true}));
    for (generation, workflow, path) in
        [(Generation::Argo, REDSHIFT, "/stop"), (Generation::Native, "redshift-dwh-9a4be150", "/cancel")]
    {
        for action in pages.iter().chain([&json!({"kind": "cut_after_applying"})]) {
            let place = busy(generation);
            let run = place.run(&format!("runs list --workflow {workflow}")).json()["runs"][0]["name"].clone();
            let run = run.as_str().expect("a run");
            let fault = json!({"path": path, "action": action});
            place.sandbox().add_fault(serde_json::from_value::<Fault>(fault).expect("a fault"));
            let ran = place.run(&format!("runs stop {run} --yes"));
            assert!(ran.code == 3 && ran.stderr.contains(&format!("whether {run} was asked to stop is not known")), "{ran:?}");
            assert!(
                ran.stderr.ends_with(&format!(
                    "hint: iolaus runs show {run}
"
                )),
                "{ran:?}"
            );
            assert_eq!(place.sandbox().effects().len(), 1, "{action}");
        }
    }
}

#[test]
fn a_name_that_leads_to_another_path_is_refused_before_anything_is_sent() {
    let place = place();
    for line in [
        "oauth-clients purge . --yes",
        "oauth-clients purge .. --yes",
        "oauth-clients update .. --name n",
        "oauth-clients get .",
        "workflows show ..",
        "runs show .",
        "runs show ../x",
        "runs stop .. --yes",
        "runs stop a/../b --yes",
        "runs list --workflow ..",
    ] {
        let ran = place.run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}");
        assert!(ran.stderr.contains("would lead to another path of the tenant"), "{line}: {ran:?}");
        assert!(["CLIENT_ID", "NAME", "RUN"].iter().any(|field| ran.stderr.contains(field)), "{line}: {ran:?}");
    }
    for words in [["oauth-clients", "purge", ""], ["workflows", "show", ""], ["runs", "stop", " "]] {
        assert_eq!(place.iolaus(words.iter().chain(&["--tenant", "default"])).code, 2, "{words:?}");
    }
    assert!(place.sandbox().requests().is_empty());
}

#[test]
fn tokens_are_found_by_their_display_name_with_guid_client_id_and_expiry() {
    let place = place();
    let ran = place.run("tokens find ci");
    let token = &ran.json()["api_tokens"][0];
    assert_eq!(
        (&token["guid"], &token["client_id"], &token["expires_at"], &token["expired"]),
        (
            &json!(CI_TOKEN),
            &json!("apikey-33333333-4444-5555-6666-777777777777"),
            &json!("2028-05-17T12:46:52.000Z"),
            &json!(false)
        )
    );
    filtered(|| {
        insta::assert_snapshot!(place.run("tokens find ci --output text").stdout, @r#"
    GUID                                  CLIENT ID                                    NAME  CREATED                   EXPIRES
    92588c67-5ddf-4a45-8b5c-dd92f4b84e99  apikey-33333333-4444-5555-6666-777777777777  ci    [time]  [time]
    "#);
    });
}

#[test]
fn whoami_shows_user_and_roles_and_survives_a_role_without_a_name() {
    let place = place();
    filtered(|| {
        insta::assert_snapshot!(place.run("whoami --output text").stdout, @r#"
    WHO
    username  service-account-apikey-11111111-2222-3333-4444-555555555555
    user id   b0000000-0000-4000-8000-000000000001
    roles     $api-token-default-access
    tenant    default
    address   http://[address]
    "#);
    });
    answer(
        &place,
        "/whoami",
        &json!({"userId": "u-1", "username": "jane", "roles": [{"id": "r", "name": null}, {"name": "$admin"}]}),
    );
    let me = place.run("whoami").json();
    assert_eq!((&me["username"], &me["roles"], &me["tenant"]), (&json!("jane"), &json!(["$admin"]), &json!("default")));
}

#[test]
fn no_text_of_the_tenant_reaches_a_terminal_with_its_control_and_bidi_characters() {
    let place = place();
    let nasty = "x\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200f}\nforged";
    let hostile = |place: &Place| {
        answer(place, "/whoami", &json!({"userId": nasty, "username": nasty, "roles": [{"name": nasty}]}));
        let hit = json!({"_id": "w", "_source": {"metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"workflows.argoproj.io/creator": nasty}}, "status": {"phase": nasty, "message": nasty}}});
        let hits = json!({"hits": {"total": {"value": 1, "relation": "eq"}, "hits": [hit]}});
        answer(place, "/indexsearch", &hits);
        let record = json!({"clientId": "c", "displayName": nasty, "createdBy": nasty});
        answer(place, "/oauth-clients", &json!({"totalRecord": 1, "records": [record]}));
    };
    for command in ["whoami", "workflows list", "runs list", "oauth-clients list"] {
        for format in ["text", "json"] {
            hostile(&place);
            let ran = place.run(&format!("{command} --output {format}"));
            place.sandbox().clear_faults();
            let shown = format!("{}{}", ran.stdout, ran.stderr);
            assert!(shown.contains("forged"), "{command}: {ran:?}");
            let acts = |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{2066}\u{200f}".contains(*c);
            assert_eq!(shown.chars().find(acts), None, "{command} --output {format}: {ran:?}");
            assert!(!shown.lines().any(|line| line.starts_with("forged")), "{command}: {ran:?}");
        }
    }
}
