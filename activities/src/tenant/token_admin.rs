//! The package that makes an API token an admin of a connection: what a workflow of it looks like, exactly as the vendor's own Python
//! client (pyatlan 9.10.3) creates it. The package runs on the tenant; nothing of what it does there is known here.

use serde_json::{Value, json};

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

/// The connection and the token that a workflow of the package was made for, as far as its template shows them.
pub(super) fn made_for(template: &Value) -> Option<(String, String)> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let parameters: Vec<_> = items(&template["spec"]["templates"])
        .iter()
        .flat_map(|template| items(&template["dag"]["tasks"]))
        .flat_map(|task| items(&task["arguments"]["parameters"]))
        .collect();
    let named = |name: &str| {
        let parameter = parameters.iter().find(|parameter| parameter["name"] == name)?;
        parameter["value"].as_str().map(str::to_owned)
    };
    Some((named("connection_qualified_name")?, named("api_token_guid")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_of_the_package_shows_what_it_was_made_for() {
        let workflow = token_admin_workflow(&token_admin_name(1_684_500_411), "default/snowflake/1", "t-1");
        assert_eq!(workflow["metadata"]["name"], "csa-api-token-connection-admin-1684500411");
        assert_eq!(made_for(&workflow), Some(("default/snowflake/1".to_owned(), "t-1".to_owned())));
        assert_eq!(made_for(&json!({"spec": {"templates": null}})), None);
    }
}
