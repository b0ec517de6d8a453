//! What the tenant holds when it starts. The table stands in the module's documentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::apps::{Apps, apps as seeded_apps};
use super::connections::{Admins, Connection};
use super::grant::GrantRequest;
use super::identity::{ADMIN, API_TOKEN, MEMBER, Principal, Role, User};
use super::keycloak::KeycloakClient;
use super::keys::Keys;
use super::ledger::Ledger;
use super::oauth_clients::OAuthClient;
use super::personas::Persona;
use super::runs::{Ending, Run, Runs};
use super::state::{Settings, Tenant, Versions};
use super::stored_credentials::StoredCredential;
use super::tokens::ApiToken;
use super::workflows::{Workflow, template};
use super::{Generation, tokens};

const PROD: &str = "default/snowflake/1234567890";
const POSTGRES: &str = "default/postgres/1111111111";
const REFUSING: &str = "default/snowflake/9999999999";
const CI_TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
const JANE: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
const JOE: &str = "5f0f9f6e-3a53-4a0e-9a39-2f3f1f1d2c10";
const TOKEN_USER: &str = "service-account-apikey-11111111-2222-3333-4444-555555555555";
const API_TOKEN_GUID: &str = "b0000000-0000-4000-8000-000000000001";
const CONNECTOR: &str = "service-account-connector";
const GRANTED_USER: &str = "service-account-apikey-66666666-7777-8888-9999-aaaaaaaaaaaa";
/// When the oldest workflow was created: 2023-05-19T12:46:51Z.
const EPOCH: i64 = 1_684_500_411_000;
/// So long before the start the long run began.
const LONG_RUN_BEGAN: i64 = 60_000;

/// The seeded tenant of a sandbox that starts at `now`.
pub(super) fn tenant(settings: Settings, ledger_limit: usize, now: i64) -> Tenant {
    let (keys, mut principals) = bearers();
    let jane = principals.iter().find(|principal| principal.username == "jane").expect("jane is seeded").clone();
    let jane = &jane;
    let (mut workflows, mut runs, mut apps) = (BTreeMap::new(), Runs::default(), Apps::default());
    match settings.generation {
        Generation::Argo => {
            workflows = seeded_workflows();
            runs = seeded_runs(jane, &workflows, settings.running, now);
        }
        Generation::Native => apps = seeded_apps(jane, now, LONG_RUN_BEGAN, settings.running),
    }
    let (oauth_clients, keycloak) = (oauth_clients(), keycloak(&principals));
    principals.extend(oauth_clients.iter().map(|client| client.principal.clone()));
    principals.extend(keycloak.iter().filter(|client| client.impersonates).map(|client| client.principal.clone()));
    Tenant {
        settings,
        principals,
        keys,
        oauth_clients,
        keycloak,
        personas: personas(),
        users: users(),
        tokens: api_tokens(),
        credentials: vec![StoredCredential::seeded(EPOCH)],
        connections: connections(),
        workflows,
        runs,
        apps,
        ledger: Ledger::new(ledger_limit),
    }
}

/// Who has a bearer from the start.
fn bearers() -> (Keys, Vec<Arc<Principal>>) {
    let seeded = [
        ("sandbox-api-token", API_TOKEN_GUID, TOKEN_USER, &API_TOKEN),
        ("sandbox-admin", JANE, "jane", &ADMIN),
        ("sandbox-member", JOE, "joe", &MEMBER),
        ("sandbox-service-account", "b0000000-0000-4000-8000-000000000002", CONNECTOR, &API_TOKEN),
    ];
    let mut keys = Keys::default();
    let seeded = seeded.into_iter().map(|(bearer, user_id, username, role)| {
        let principal = principal(user_id, username, role);
        keys.seed(bearer, &principal);
        principal
    });
    let principals = seeded.collect();
    (keys, principals)
}

fn principal(user_id: &str, username: &str, role: &'static Role) -> Arc<Principal> {
    let email = format!("{username}@example.com");
    Arc::new(Principal { user_id: user_id.to_owned(), username: username.to_owned(), email, role })
}

fn oauth_clients() -> Vec<OAuthClient> {
    let client_id = "oauth-client-sandbox";
    vec![OAuthClient {
        id: "f0000000-0000-4000-8000-000000000001".to_owned(),
        client_id: client_id.to_owned(),
        secret: "sandbox-oauth-secret".to_owned(),
        display_name: "sandbox".to_owned(),
        description: String::new(),
        personas: Vec::new(),
        token_seconds: None,
        created: (EPOCH, "jane".to_owned()),
        updated: (EPOCH, "jane".to_owned()),
        principal: OAuthClient::principal(client_id, &ADMIN),
    }]
}

/// The connector's pod logs in as a service account; the other one may become any user.
fn keycloak(principals: &[Arc<Principal>]) -> Vec<KeycloakClient> {
    let connector = principals.iter().find(|principal| principal.username == CONNECTOR).expect("the connector is seeded");
    let superuser = principal("b0000000-0000-4000-8000-000000000003", "service-account-atlan-argo", &ADMIN);
    [
        ("cc000000-0000-4000-8000-000000000001", "connector", "sandbox-connector-secret", false, connector.clone()),
        ("cc000000-0000-4000-8000-000000000002", "atlan-argo", "sandbox-argo-secret", true, superuser),
    ]
    .into_iter()
    .map(|(guid, client_id, secret, impersonates, principal)| {
        let (guid, client_id, secret) = (guid.to_owned(), client_id.to_owned(), secret.to_owned());
        KeycloakClient { guid, client_id, secret, impersonates, principal }
    })
    .collect()
}

fn personas() -> Vec<Persona> {
    let persona = |guid: &str, qualified_name: &str, name: &str| Persona {
        guid: guid.to_owned(),
        qualified_name: qualified_name.to_owned(),
        name: name.to_owned(),
        created_at: EPOCH,
    };
    vec![
        persona("9e000000-0000-4000-8000-000000000001", "default/xS2hdJ7TWUqhVcZHC3zoVN", "Data Stewards"),
        persona("9e000000-0000-4000-8000-000000000002", "default/rEaDeRs1TWUqhVcZHC3zoV", "Readers"),
        persona("9e000000-0000-4000-8000-000000000003", "default/rEaDeRs2TWUqhVcZHC3zoV", "Readers"),
    ]
}

fn users() -> Vec<User> {
    let user = |id: &str, username: &str, enabled: bool, publishes_to: &[&str]| User {
        id: id.to_owned(),
        username: username.to_owned(),
        enabled,
        publishes_to: publishes_to.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![
        user(JANE, "jane", true, &[PROD, POSTGRES, REFUSING]),
        user(JOE, "joe", true, &[POSTGRES]),
        user("0d15ab1e-d000-4000-8000-000000000001", "dora", false, &[PROD]),
        user("90000000-0000-4000-8000-000000000002", "noah", true, &[]),
    ]
}

fn api_tokens() -> Vec<ApiToken> {
    let token = |guid: &str, username: &str, display_name: &str, created_at: i64| ApiToken {
        guid: guid.to_owned(),
        client_id: username.trim_start_matches("service-account-").to_owned(),
        secret: format!("sandbox-{display_name}-secret"),
        display_name: display_name.to_owned(),
        description: String::new(),
        personas: Vec::new(),
        lifespan: tokens::LONGEST,
        created_at,
        created_by: "jane".to_owned(),
    };
    vec![
        token(API_TOKEN_GUID, TOKEN_USER, "sandbox", EPOCH),
        token(CI_TOKEN, "apikey-33333333-4444-5555-6666-777777777777", "ci", EPOCH + 1_000),
        token("a11ead1e-0000-4000-8000-000000000003", GRANTED_USER, "granted", EPOCH + 2_000),
    ]
}

fn connections() -> BTreeMap<String, Connection> {
    let connection = |guid: &str, qualified_name: &str, name: &str, users: &[&str]| {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        Connection::new(guid, qualified_name, name, EPOCH, Admins { users, ..Admins::default() })
    };
    let mut refusing = connection("c0000000-0000-4000-8000-000000000003", REFUSING, "locked", &["jane"]);
    refusing.refuses = true;
    [
        connection("c0000000-0000-4000-8000-000000000001", PROD, "prod", &["jane"]),
        connection("c0000000-0000-4000-8000-000000000002", POSTGRES, "crm", &["jane", GRANTED_USER]),
        refusing,
    ]
    .into_iter()
    .map(|connection| (connection.qualified_name.clone(), connection))
    .collect()
}

fn seeded_workflows() -> BTreeMap<String, Workflow> {
    let failing = Ending::failed("child 'extract' failed: could not connect to server: Connection refused");
    let seeded = [
        ("csa-api-token-connection-admin-1684500411", "@csa/api-token-connection-admin", Ending::succeeded()),
        ("atlan-snowflake-1684500500", "@atlan/snowflake", Ending::succeeded()),
        ("atlan-snowflake-miner-1684500600", "@atlan/snowflake-miner", Ending::succeeded()),
        ("atlan-postgres-1684500700", "@atlan/postgres", failing),
        ("atlan-redshift-1684500800", "@atlan/redshift", Ending::succeeded()),
        ("atlan-tableau-1684500900", "@atlan/tableau", Ending::succeeded()),
        ("atlan-tableau-1684500901", "@atlan/tableau", Ending::succeeded()),
    ];
    seeded.into_iter().map(|(name, package, end)| (name.to_owned(), workflow(name, package, end))).collect()
}

/// A template whose name ends in the epoch second of its creation, as the vendor's client names them.
fn workflow(name: &str, package: &str, end: Ending) -> Workflow {
    let created_at = name.rsplit('-').next().and_then(|digits| digits.parse::<i64>().ok()).map_or(EPOCH, |seconds| seconds * 1_000);
    let template_ref = package.trim_start_matches('@').replace('/', "-");
    let parameters = if template_ref.starts_with("csa-") {
        json!([{ "name": "connection_qualified_name", "value": PROD }, { "name": "api_token_guid", "value": CI_TOKEN }])
    } else {
        json!([{ "name": "publish-mode", "value": "production" }])
    };
    let labels = strings([
        ("orchestration.atlan.com/type", if template_ref.starts_with("csa-") { "custom" } else { "connector" }),
        ("package.argoproj.io/name", &package.replace('@', "a-t-r").replace('/', "s-l-a-s-h")),
        ("workflows.argoproj.io/creator", JANE),
        ("workflows.argoproj.io/creator-email", "jane.at.example.com"),
        ("workflows.argoproj.io/creator-preferred-username", "jane"),
    ]);
    let annotations = strings([("package.argoproj.io/name", package), ("orchestration.atlan.com/atlanName", name)]);
    let spec = json!({ "entrypoint": "main",
        "templates": [{ "name": "main", "dag": { "tasks": [{ "name": "run", "arguments": { "parameters": parameters },
            "templateRef": { "name": template_ref, "template": "main", "clusterScope": true } }] } }],
        "workflowMetadata": { "annotations": { "package.argoproj.io/name": package } } });
    let document = template(name, created_at, &labels, &annotations, &spec);
    Workflow { document: Versions::new(created_at, Some(document)), owner: "jane".to_owned(), end }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

fn seeded_runs(jane: &Arc<Principal>, workflows: &BTreeMap<String, Workflow>, running: i64, now: i64) -> Runs {
    let run = |workflow: &str, suffix: &str, created_at: i64, ends_at: i64| Run {
        name: format!("{workflow}-{suffix}"),
        workflow: workflow.to_owned(),
        engine: false,
        by: jane.clone(),
        created_at,
        running_at: created_at,
        ends_at,
        end: workflows.get(workflow).map_or_else(Ending::succeeded, |workflow| workflow.end.clone()),
        stopped_at: None,
        // The old run's grant is long past, and was since undone: it must not be given again at the first look.
        grant: None::<GrantRequest>,
    };
    let mut runs = Runs::default();
    runs.add(run("csa-api-token-connection-admin-1684500411", "t7s8b", EPOCH + 4_000, EPOCH + 79_000));
    runs.add(run("atlan-redshift-1684500800", "k2v9d", now.saturating_sub(LONG_RUN_BEGAN), now.saturating_add(running)));
    runs
}
