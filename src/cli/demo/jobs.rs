//! The jobs of the demo and what each should come to. The values are those that every sandbox holds.

use iolaus_activities::{Status, VerdictRecord};
use serde_json::{Value, json};

use super::Ended;
use crate::intake::JobRequest;
use crate::sandbox::{Action, Fault};

/// A user who may publish everywhere.
pub(super) const USER: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
const DISABLED: &str = "0d15ab1e-d000-4000-8000-000000000001";
const NOT_ALLOWED: &str = "90000000-0000-4000-8000-000000000002";
/// The connection of the public documentation.
pub(super) const CONNECTION: &str = "default/snowflake/1234567890";
const TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";

/// One job of the demo.
pub(super) struct Sample {
    pub(super) title: &'static str,
    activity: &'static str,
    input: Value,
    /// What goes wrong at the tenant while this job runs.
    pub(super) fault: Option<Fault>,
    expected: Status,
    /// A fact that must be there, too.
    fact: Option<(&'static str, Value)>,
}

impl Sample {
    fn new(title: &'static str, activity: &'static str, input: Value, expected: Status) -> Self {
        Self { title, activity, input, fault: None, expected, fact: None }
    }

    fn with_fact(self, name: &'static str, value: Value) -> Self {
        Self { fact: Some((name, value)), ..self }
    }

    fn during(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    pub(super) fn request(&self, n: usize) -> JobRequest {
        JobRequest {
            activity: self.activity.to_owned(),
            input: self.input.clone(),
            job_id: Some(format!("demo-{}-{}", n + 1, self.activity)),
            ..JobRequest::default()
        }
    }

    pub(super) fn judge(&self, verdict: VerdictRecord) -> Ended {
        let fact = self.fact.as_ref().is_none_or(|(name, value)| verdict.facts.get(*name) == Some(value));
        Ended { title: self.title, as_expected: verdict.status == self.expected && fact, verdict }
    }
}

/// A dozen and one.
pub(super) fn samples() -> Vec<Sample> {
    use Status::{Failed, Passed, Unresolved};
    let preflight = |title, user: &str, connection: &str, expected| {
        let input = json!({"user_id": user, "connection_qualified_name": connection});
        Sample::new(title, "publish_preflight", input, expected)
    };
    let rerun = |title, input, expected| Sample::new(title, "workflow_rerun", input, expected);
    let grant = |title, connection: &str, token: &str| {
        let input = json!({"connection_qualified_name": connection, "api_token_guid": token});
        Sample::new(title, "token_admin_grant", input, Passed)
    };
    let unavailable = Action::Status { status: 503, headers: Vec::new(), body: Value::Null };
    vec![
        preflight("a tenant that answers 503 twice before it answers", USER, CONNECTION, Passed)
            .during(Fault::new(unavailable).on("user-publish-check").times(2)),
        preflight("a user who may publish", USER, CONNECTION, Passed),
        preflight("a user alone, without a connection", USER, "", Passed),
        preflight("a user who is disabled", DISABLED, CONNECTION, Failed),
        preflight("a user without the permission", NOT_ALLOWED, CONNECTION, Failed),
        grant("an API token becomes an administrator of a connection", CONNECTION, TOKEN),
        grant("an API token that is one already", "default/postgres/1111111111", "a11ead1e-0000-4000-8000-000000000003"),
        rerun("a crawler, by its type, to its end", json!({"type": "snowflake"}), Passed).with_fact("started", true.into()),
        rerun(
            "its miner, by its name, until it is submitted",
            json!({"workflow": "atlan-snowflake-miner-1684500600", "until": "submitted"}),
            Passed,
        ),
        rerun("a crawler that fails", json!({"workflow": "atlan-postgres-1684500700"}), Failed),
        rerun("a crawler that runs already: its run is adopted", json!({"type": "redshift"}), Passed)
            .with_fact("started", false.into()),
        rerun("two workflows of one type, so that it is unclear which is meant", json!({"type": "tableau"}), Unresolved),
        Sample::new(
            "the end of a run that somebody else started",
            "await_completion",
            json!({"run": "atlan-redshift-1684500800-k2v9d"}),
            Passed,
        ),
    ]
}
