//! Which of the configured tenants this worker takes jobs of.

use iolaus_activities::tenant::Tenants;

use crate::embedded::store::ServedTenants;

/// Those with an address and credentials. A worker without any tenant, as in benchmarks, takes whatever its activities run for.
pub(super) fn served(tenants: &Tenants) -> ServedTenants {
    if tenants.names().next().is_none() {
        return ServedTenants::All;
    }
    let usable = tenants.names().filter(|name| tenants.get(name).is_ok_and(|tenant| tenant.unset().is_none()));
    ServedTenants::Only(usable.map(str::to_owned).collect())
}
