//! The apps that can be made into workflows, and the contract of each one's inputs.

use serde_json::{Value, json};

use super::contract;
use crate::sandbox::answer::{Refusal, Reply};
use crate::sandbox::state::{Call, Tenant};

/// An app of the marketplace.
#[derive(Debug)]
pub(super) struct App {
    pub(super) id: &'static str,
    name: &'static str,
    /// The one named entrypoint; `None`: only the default one.
    entrypoint: Option<&'static str>,
    native_ready: bool,
}

static CATALOG: [App; 7] = [
    App { id: "atlan-tableau", name: "Tableau", entrypoint: None, native_ready: true },
    App { id: "bigquery-crawler", name: "BigQuery", entrypoint: Some("crawler"), native_ready: true },
    App { id: "csa-api-token-connection-admin", name: "API Token Connection Admin", entrypoint: None, native_ready: false },
    App { id: "postgres-crawler", name: "Postgres", entrypoint: Some("crawler"), native_ready: true },
    App { id: "redshift-crawler", name: "Redshift", entrypoint: Some("crawler"), native_ready: true },
    App { id: "snowflake-crawler", name: "Snowflake", entrypoint: Some("crawler"), native_ready: true },
    App { id: "snowflake-miner", name: "Snowflake Miner", entrypoint: Some("miner"), native_ready: true },
];

impl App {
    fn find(id: &str) -> Result<&'static Self, Refusal> {
        CATALOG.iter().find(|app| app.id == id).ok_or_else(|| Refusal::new(404, format!("app {id} does not exist")))
    }

    /// The input contract at an entrypoint, as JSON Schema; the number 1003 where there is none.
    fn contract(&self, entrypoint: Option<&str>) -> Reply {
        let known = entrypoint.is_none_or(|name| Some(name) == self.entrypoint);
        if !known || !self.native_ready {
            let message = format!("unknown entrypoint or app does not expose an input contract: {}", self.id);
            return Err(Refusal::coded(400, 1003, message));
        }
        let required = if self.id == "snowflake-miner" { json!(["connection"]) } else { json!([]) };
        Ok(json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "AppInputContract", "type": "object",
            "properties": {
                "connection": { "type": ["object", "string"], "title": "Connection" },
                "connection_qualified_name": { "type": "string" },
                "credential_guid": { "type": ["string", "null"] },
                "extraction_method": { "type": "string", "enum": ["direct", "agent"], "default": "direct" },
                "include_filter": { "type": ["object", "string"], "default": "{}" },
                "exclude_filter": { "type": ["object", "string"], "default": "{}" },
                "temp_table_regex": { "type": "string", "default": "" },
                "max_concurrent_activities": { "type": "integer", "default": 15 },
                "hidden_datasets": { "type": "boolean", "default": false } },
            "required": required, "$defs": {} }))
    }
}

/// The app of a new or changed workflow, its inputs checked; the number 1000 where they do not match.
pub(super) fn check(id: &str, entrypoint: Option<&str>, inputs: &Value) -> Result<&'static App, Refusal> {
    let app = App::find(id)?;
    let contract = app.contract(entrypoint)?;
    contract::check(&contract, inputs).map_err(|why| {
        let message = format!("inputs do not match the app input contract: {why}");
        Refusal::coded(400, 1000, message)
    })?;
    Ok(app)
}

/// `GET v1/apps/<app>`.
pub(super) fn describe(_: &mut Tenant, _: &Call, id: &str) -> Reply {
    let app = App::find(id)?;
    let entrypoints: Vec<Value> = app.entrypoint.iter().map(|name| json!({ "name": name })).collect();
    let mode = if app.native_ready { "native" } else { "argo" };
    Ok(json!({ "app_id": app.id, "name": app.name, "native_ready": app.native_ready, "execution_mode": mode,
        "entrypoints": entrypoints }))
}

/// `GET v1/apps/<app>/inputs`.
pub(super) fn inputs(_: &mut Tenant, call: &Call, id: &str) -> Reply {
    App::find(id)?.contract(call.query("entrypoint"))
}
