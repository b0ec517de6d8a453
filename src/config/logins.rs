//! Which way to log in is meant, where several layers name one each: the later one. Where the vendor's own variables name two, the API
//! key, as the vendor's client does.

use config::{Map, Value, ValueKind};

/// The keys of each way, the secret and its file last.
const WAYS: [&[&str]; 3] = [
    &["api_key", "api_key_file"],
    &["oauth_client_id", "oauth_client_secret", "oauth_client_secret_file"],
    &["keycloak_client_id", "keycloak_client_secret", "keycloak_client_secret_file"],
];
const VENDORS: u8 = 1;

pub(super) fn prefer_the_later(merged: &mut Map<String, Value>) {
    let Some(ValueKind::Table(tenants)) = merged.get_mut("tenants").map(|value| &mut value.kind) else { return };
    for tenant in tenants.values_mut() {
        if let ValueKind::Table(tenant) = &mut tenant.kind {
            prefer_the_later_way(tenant);
            for way in WAYS {
                prefer_the_later_secret(tenant, way);
            }
        }
    }
}

fn prefer_the_later_way(tenant: &mut Map<String, Value>) {
    let ranks = WAYS.map(|way| way.iter().filter_map(|key| rank(tenant, key)).max());
    let Some(best) = ranks.iter().flatten().max().copied() else { return };
    let mut vendors_choice = false;
    for (way, rank) in WAYS.iter().zip(ranks) {
        if rank.is_some_and(|rank| rank < best) || vendors_choice {
            for key in *way {
                tenant.remove(*key);
            }
        }
        vendors_choice |= best == VENDORS && rank == Some(best);
    }
}

/// A secret and its file exclude each other.
fn prefer_the_later_secret(tenant: &mut Map<String, Value>, way: &[&str]) {
    let [.., secret, file] = way else { return };
    match (rank(tenant, secret), rank(tenant, file)) {
        (Some(key), Some(path)) if key > path => tenant.remove(*file),
        (Some(key), Some(path)) if key < path => tenant.remove(*secret),
        _ => None,
    };
}

/// The layer that a key was set in last; None if it is not set, or set to nothing.
fn rank(tenant: &Map<String, Value>, key: &str) -> Option<u8> {
    let value = tenant.get(key)?;
    let set = value.clone().into_string().is_ok_and(|text| !text.trim().is_empty());
    set.then(|| match value.origin() {
        Some(origin) if origin.starts_with("the variable IOLAUS_") => 2,
        Some(origin) if origin.starts_with("the variable ") => VENDORS,
        _ => 0,
    })
}
