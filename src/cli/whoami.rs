//! `iolaus whoami`: which user the tenant takes these credentials for.

use clap::Args;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::render::table;
use super::tenant_args::OfTenant;

/// Show which user a tenant takes the configured credentials for, and its roles
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus whoami
  iolaus whoami --tenant acme --output json")]
pub(crate) struct Whoami {
    #[command(flatten)]
    tenant: OfTenant,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    tenant: &'a str,
    base_url: &'a str,
    user_id: Option<&'a str>,
    username: Option<&'a str>,
    roles: &'a [String],
}

impl Whoami {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let me = tenant.whoami().await?;
        let shown = Shown {
            tenant: tenant.name(),
            base_url: &tenant.settings().base_url,
            user_id: Some(me.user_id.as_str()).filter(|id| !id.is_empty()),
            username: Some(me.username.as_str()).filter(|name| !name.is_empty()),
            roles: &me.roles,
        };
        app.out.data(&shown, || text(&shown))?;
        Ok(Exit::Passed)
    }
}

fn text(shown: &Shown<'_>) -> String {
    let roles = if shown.roles.is_empty() { "none".to_owned() } else { shown.roles.join(", ") };
    let rows = [
        ("username", shown.username.unwrap_or("(not told)")),
        ("user id", shown.user_id.unwrap_or("(not told)")),
        ("roles", &roles),
        ("tenant", shown.tenant),
        ("address", shown.base_url),
    ];
    table(&["WHO", ""], &rows.map(|(name, value)| vec![name.to_owned(), value.to_owned()]))
}
