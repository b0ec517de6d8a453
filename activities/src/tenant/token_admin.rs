//! The package that makes an API token an admin of a connection: what a workflow of it looks like, exactly as the vendor's own Python
//! client (pyatlan 9.10.3) creates it. The package runs on the tenant; nothing of what it does there is known here.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Element, Exact, Lenient, List};

/// The package's name.
pub const TOKEN_ADMIN_PACKAGE: &str = "@csa/api-token-connection-admin";
/// What the names of its workflows start with.
const STEM: &str = "csa-api-token-connection-admin";

/// The name of a workflow of the package that is created in a second of the tenant's clock. Two in one second would be the same.
pub fn token_admin_name(second: i64) -> String {
    format!("{STEM}-{second}")
}

/// A workflow of the package, to be created under `name`.
pub fn token_admin_workflow(name: &str, connection_qualified_name: &str, api_token_guid: &str) -> Value {
    json!({
        "metadata": {"annotations": annotations(name), "labels": labels(), "name": name, "namespace": "default"},
        "spec": {
            "entrypoint": "main",
            "templates": [{"name": "main", "dag": {"tasks": [{
                "name": "run",
                "arguments": {"parameters": [
                    {"name": "connection_qualified_name", "value": connection_qualified_name},
                    {"name": "api_token_guid", "value": api_token_guid},
                ]},
                "templateRef": {"name": STEM, "template": "main", "clusterScope": true},
            }]}}],
            "workflowMetadata": {"annotations": {"package.argoproj.io/name": TOKEN_ADMIN_PACKAGE}},
        },
        "payload": [],
    })
}

fn annotations(name: &str) -> Value {
    json!({
        "orchestration.atlan.com/allowSchedule": "true",
        "orchestration.atlan.com/atlanName": name,
        "orchestration.atlan.com/categories": "kotlin,utility",
        "orchestration.atlan.com/dependentPackage": "",
        "orchestration.atlan.com/docsUrl": "https://solutions.atlan.com/api-token-connection-admin/",
        "orchestration.atlan.com/emoji": "\u{1f680}",
        "orchestration.atlan.com/icon": "http://assets.atlan.com/assets/ph-key-light.svg",
        "orchestration.atlan.com/logo": "http://assets.atlan.com/assets/ph-key-light.svg",
        "orchestration.atlan.com/name": "API Token Connection Admin",
        "package.argoproj.io/author": "Atlan CSA",
        "package.argoproj.io/description": "Assigns an API token as a connection admin for an existing connection.",
        "package.argoproj.io/homepage": "https://packages.atlan.com/-/web/detail/@csa/api-token-connection-admin",
        "package.argoproj.io/keywords": "[\"kotlin\",\"utility\"]",
        "package.argoproj.io/name": TOKEN_ADMIN_PACKAGE,
        "package.argoproj.io/parent": ".",
        "package.argoproj.io/registry": "https://packages.atlan.com",
        "package.argoproj.io/repository": "git+https://github.com/atlanhq/marketplace-packages.git",
        "package.argoproj.io/support": "support@atlan.com",
    })
}

/// Values of labels may hold no `@`, `/` or `:`; the tenant spells these out.
fn labels() -> Value {
    json!({
        "orchestration.atlan.com/atlan-ui": "true",
        "orchestration.atlan.com/certified": "true",
        "orchestration.atlan.com/preview": "true",
        "orchestration.atlan.com/source": "atlan",
        "orchestration.atlan.com/sourceCategory": "utility",
        "orchestration.atlan.com/type": "custom",
        "orchestration.atlan.com/verified": "true",
        "package.argoproj.io/installer": "argopm",
        "package.argoproj.io/name": "a-t-rcsas-l-a-s-hapi-token-connection-admin",
        "package.argoproj.io/registry": "httpsc-o-l-o-ns-l-a-s-hs-l-a-s-hpackages.atlan.com",
    })
}

/// The `spec` of a workflow, as far as it shows what it was made for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Template {
    templates: List<Lenient<Step>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    dag: Lenient<Graph>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Graph {
    tasks: List<Lenient<Task>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Task {
    arguments: Lenient<Arguments>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Arguments {
    parameters: List<Lenient<Parameter>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameter {
    name: Exact,
    value: Exact,
}

/// A template of the package has one step, with one task of two parameters.
const MOST: usize = 16;

impl Element for Step {
    const MOST: usize = MOST;
}

impl Element for Task {
    const MOST: usize = MOST;
}

impl Element for Parameter {
    const MOST: usize = MOST;
}

/// The connection and the token that a workflow of the package was made for, as far as its template shows them.
pub(super) fn made_for(template: &Template) -> Option<(String, String)> {
    let steps = template.templates.items().iter();
    let tasks = steps.flat_map(|step| step.dag.tasks.items());
    let parameters: Vec<_> = tasks.flat_map(|task| task.arguments.parameters.items()).collect();
    let named = |name: &str| {
        let parameter = parameters.iter().find(|parameter| parameter.name.0.as_deref() == Some(name))?;
        parameter.value.0.clone()
    };
    Some((named("connection_qualified_name")?, named("api_token_guid")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::answer::decode_ours;

    #[test]
    fn a_workflow_of_the_package_shows_what_it_was_made_for() {
        let workflow = token_admin_workflow(&token_admin_name(1_684_500_411), "default/snowflake/1", "t-1");
        assert_eq!(workflow["metadata"]["name"], "csa-api-token-connection-admin-1684500411");
        let made_for = |spec: &Value| made_for(&decode_ours(spec).expect("any value decodes"));
        assert_eq!(made_for(&workflow["spec"]), Some(("default/snowflake/1".to_owned(), "t-1".to_owned())));
        assert_eq!(made_for(&json!({"templates": null})), None);
    }
}
