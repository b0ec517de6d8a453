//! Which of the configured tenants this worker takes jobs of, and how its slots are shared out among them. Read once: a tenant's
//! address and credentials are configured when the worker starts.

use std::fmt;
use std::sync::Arc;

use iolaus_activities::tenant::{Tenant, Tenants};

use crate::embedded::store::{Holds, ServedTenants, ShareTable};

/// Those with an address and credentials. A worker without any tenant, as in benchmarks, takes whatever its activities run for.
pub(super) fn served(tenants: &Tenants) -> ServedTenants {
    if tenants.names().next().is_none() {
        return ServedTenants::All;
    }
    ServedTenants::Only(usable(tenants).map(|tenant| tenant.name().to_owned()).collect())
}

/// How so many slots are shared out.
pub(super) fn shares(slots: usize, tenants: &Arc<Tenants>) -> Arc<ShareTable> {
    let limits = usable(tenants).map(|tenant| (tenant.name().to_owned(), tenant.settings().max_jobs)).collect::<Vec<_>>();
    let holds = (!limits.is_empty()).then(|| -> Arc<dyn Holds> { Arc::new(HeldTenants(tenants.clone())) });
    ShareTable::new(slots, limits, holds)
}

fn usable(tenants: &Tenants) -> impl Iterator<Item = Arc<Tenant>> {
    tenants.names().filter_map(|name| tenants.get(name).ok()).filter(|tenant| tenant.unset().is_none())
}

/// Asks the tenants themselves, each only when a claim comes to one of its jobs.
struct HeldTenants(Arc<Tenants>);

impl Holds for HeldTenants {
    fn is_held(&self, tenant: &str) -> bool {
        self.0.get(tenant).is_ok_and(|tenant| tenant.hold().is_some())
    }
}

impl fmt::Debug for HeldTenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldTenants").finish_non_exhaustive()
    }
}
