//! Names of packages: what the vendor's clients, its documentation and people call them, and the one name that workflows carry.

use crate::text::shell_word;

/// The packages of the vendor's enum that are not `@atlan/…`. All others are.
const CSA: [&str; 6] = [
    "api-token-connection-admin",
    "asset-export-basic",
    "asset-import",
    "lineage-builder",
    "lineage-generator",
    "relational-assets-builder",
];

/// The full name of a package: `snowflake`, `atlan-snowflake` and `@atlan/snowflake` are one, and so are `asset-import`, `csa-asset-import`
/// and `@csa/asset-import`. What starts with `@` stays as it is.
///
/// ```
/// # use iolaus_activities::tenant::package_name;
/// assert_eq!(package_name("atlan-snowflake-miner"), "@atlan/snowflake-miner");
/// assert_eq!(package_name("csa-api-token-connection-admin"), "@csa/api-token-connection-admin");
/// assert_eq!(package_name("@csa/asset-import"), "@csa/asset-import");
/// ```
pub fn package_name(written: &str) -> String {
    let written = written.trim();
    if written.starts_with('@') {
        return written.to_owned();
    }
    let written = written.to_ascii_lowercase().replace('_', "-");
    // People also leave out the `@` alone.
    let split = written.split_once('/').or_else(|| written.split_once('-'));
    match split {
        Some((scope @ ("atlan" | "csa"), package)) => format!("@{scope}/{package}"),
        _ if CSA.contains(&written.as_str()) => format!("@csa/{written}"),
        _ => format!("@atlan/{written}"),
    }
}

/// The command that helps when a tenant has no workflow of this name: it lists those of the type that the name tells of, else it checks
/// the tenant.
///
/// ```
/// # use iolaus_activities::tenant::where_to_look;
/// assert_eq!(where_to_look("default", "atlan-snowflake-1684500500"), "iolaus workflows find @atlan/snowflake");
/// assert_eq!(where_to_look("acme", "nightly"), "iolaus doctor --tenant acme");
/// ```
pub fn where_to_look(tenant: &str, workflow: &str) -> String {
    match package_of_name(workflow) {
        Some(package) => find_command(tenant, &package),
        None => format!("iolaus doctor{}", of_tenant(tenant)),
    }
}

/// The command that lists the workflows of a package.
pub(crate) fn find_command(tenant: &str, package: &str) -> String {
    format!("iolaus workflows find {}{}", shell_word(package), of_tenant(tenant))
}

fn of_tenant(tenant: &str) -> String {
    if tenant == "default" { String::new() } else { format!(" --tenant {}", shell_word(tenant)) }
}

/// The package that a name tells of: `atlan-` or `csa-`, the package, and the second of its creation, with or without a run's suffix.
fn package_of_name(name: &str) -> Option<String> {
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('-').collect();
    let end = parts.iter().position(is_number).unwrap_or(parts.len());
    let (scope, package) = parts[..end].split_first()?;
    let plain = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let fine = matches!(*scope, "atlan" | "csa") && !package.is_empty() && package.iter().all(plain);
    fine.then(|| format!("@{scope}/{}", package.join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of `WorkflowPackage` in pyatlan 9.11.0.
    const ENUM: [&str; 62] = [
        "atlan-airflow",
        "atlan-athena",
        "atlan-aws-lambda-trigger",
        "atlan-azure-event-hub",
        "atlan-bigquery",
        "atlan-bigquery-miner",
        "atlan-alloydb-postgres",
        "atlan-cloudsql-postgres",
        "atlan-connection-delete",
        "atlan-databricks",
        "atlan-databricks-lineage",
        "atlan-dynamodb",
        "atlan-dbt",
        "atlan-fivetran",
        "atlan-glue",
        "atlan-hive",
        "atlan-hive-miner",
        "atlan-kafka",
        "atlan-kafka-aiven",
        "atlan-kafka-confluent-cloud",
        "atlan-kafka-redpanda",
        "atlan-looker",
        "atlan-matillion",
        "atlan-metabase",
        "atlan-microstrategy",
        "atlan-mode",
        "atlan-monte-carlo",
        "atlan-mssql",
        "atlan-mssql-miner",
        "atlan-mysql",
        "atlan-oracle",
        "atlan-postgres",
        "atlan-powerbi",
        "atlan-powerbi-miner",
        "atlan-presto",
        "atlan-qlik-sense",
        "atlan-qlik-sense-enterprise-windows",
        "atlan-quicksight",
        "atlan-redash",
        "atlan-redshift",
        "atlan-redshift-miner",
        "atlan-salesforce",
        "atlan-dataverse",
        "atlan-sap-hana",
        "atlan-schema-registry-confluent",
        "atlan-sigma",
        "atlan-snowflake",
        "atlan-snowflake-miner",
        "atlan-mongodb",
        "atlan-soda",
        "atlan-synapse",
        "atlan-tableau",
        "atlan-teradata",
        "atlan-teradata-miner",
        "atlan-thoughtspot",
        "atlan-trino",
        "csa-asset-import",
        "csa-asset-export-basic",
        "csa-relational-assets-builder",
        "csa-lineage-builder",
        "csa-lineage-generator",
        "csa-api-token-connection-admin",
    ];

    #[test]
    fn every_package_of_the_vendors_enum_is_understood_in_each_of_its_forms() {
        for value in ENUM {
            let (scope, package) = value.split_once('-').expect("a scope and a name");
            let full = format!("@{scope}/{package}");
            for written in [value, package, &full, &full[1..], &value.to_uppercase().replace('-', "_"), &format!(" {value} ")] {
                assert_eq!(package_name(written), full, "{written}");
            }
        }
        assert_eq!(ENUM.iter().filter(|value| value.starts_with("csa-")).count(), CSA.len());
        assert_eq!(package_name("@other/thing"), "@other/thing");
        assert_eq!(package_name("atlanta"), "@atlan/atlanta");
    }

    #[test]
    fn a_name_tells_of_its_package_or_of_none() {
        for (name, package) in [
            ("atlan-snowflake-miner-1684500600", Some("@atlan/snowflake-miner")),
            ("atlan-snowflake-1684500500-f4aw5", Some("@atlan/snowflake")),
            ("csa-api-token-connection-admin-1684500411", Some("@csa/api-token-connection-admin")),
            ("atlan-nothing", Some("@atlan/nothing")),
            ("atlan", None),
            ("atlan-1684500600", None),
            ("nightly-1684500600", None),
            ("atlan-a b", None),
            ("", None),
        ] {
            assert_eq!(package_of_name(name).as_deref(), package, "{name}");
        }
    }
}
