//! What the commands about a tenant have in common: which tenant, names that become part of a path, and lists that may be longer than
//! what is shown.

use std::sync::Arc;

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use iolaus_activities::tenant::{Generation, Kind, Listed, Tenant};
use iolaus_activities::{Failure, shell_word};

use super::App;

/// The tenant to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfTenant {
    /// The tenant to ask
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = super::input::utf8())]
    pub(crate) tenant: String,
}

impl OfTenant {
    /// The tenant with its client.
    pub(crate) fn open(&self, app: &App) -> anyhow::Result<Arc<Tenant>> {
        Ok(app.tenants()?.get(&self.tenant)?)
    }
}

/// A word that is not empty.
pub(crate) fn not_empty() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// A name that becomes one segment of a path at the tenant. Parts that are `.` or `..` would lead to another path, also behind a `/`:
/// some servers decode an encoded one before they resolve dots.
pub(crate) fn path_name() -> impl TypedValueParser<Value = String> {
    not_empty().try_map(|name| {
        let dots = name.split(['/', '\\']).any(|part| matches!(part.trim(), "." | ".."));
        if dots || name.trim().is_empty() {
            return Err(format!("`{name}` is not a name: it would lead to another path of the tenant"));
        }
        Ok(name)
    })
}

/// A command with the tenant that it is for.
pub(crate) fn command(tenant: &str, words: &str) -> String {
    if tenant == "default" { format!("iolaus {words}") } else { format!("iolaus {words} --tenant {}", shell_word(tenant)) }
}

/// The kinds that a tenant may have. With `auto` both are asked for.
pub(crate) fn kinds(tenant: &Tenant) -> &'static [Kind] {
    match tenant.settings().generation {
        Generation::Argo => &[Kind::Workflow],
        Generation::Native => &[Kind::App],
        Generation::Auto => &[Kind::Workflow, Kind::App],
    }
}

/// Whether a failure says that the tenant does not have this kind at all.
pub(crate) fn lacks_kind(failure: &Failure) -> bool {
    matches!(failure.code.as_ref(), "generation.unsupported" | "tenant.not_found" | "tenant.unsupported")
}

/// A list over all kinds of a tenant.
pub(crate) struct Gathered<T> {
    pub(crate) listed: Listed<T>,
    /// Why one kind is missing in the list.
    pub(crate) missing: Option<Failure>,
}

/// Asks for every kind that the tenant may have. A kind that it lacks is no failure, as long as it has another.
pub(crate) async fn gather<T>(
    tenant: &Tenant,
    mut fetch: impl AsyncFnMut(Kind) -> Result<Listed<T>, Failure>,
) -> Result<Gathered<T>, Failure> {
    let (mut listed, mut missing, mut lacking): (Option<Listed<T>>, _, _) = (None, None, None);
    for kind in kinds(tenant) {
        match fetch(*kind).await {
            Ok(found) => {
                listed = Some(match listed {
                    Some(so_far) => so_far.joined(found),
                    None => found,
                });
            }
            Err(failure) if lacks_kind(&failure) => lacking = lacking.or(Some(failure)),
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    match (listed, missing, lacking) {
        (Some(listed), missing, _) => Ok(Gathered { listed, missing }),
        (None, Some(failure), _) | (None, None, Some(failure)) => Err(failure),
        (None, None, None) => unreachable!("every generation has a kind"),
    }
}

/// Says what of a list is not shown, and how it is. `noun` is one of its rows, as in `run`.
pub(crate) fn note_rest<T>(app: &App, listed: &Listed<T>, noun: &str, how: &str) {
    let shown = listed.rows.len();
    let total = listed.total.filter(|total| *total >= u64::try_from(shown).unwrap_or(u64::MAX));
    match (listed.more, total) {
        (false, _) => {}
        (true, Some(total)) => app.out.note(&format!("{shown} of {total} {noun}s are shown; {how}")),
        (true, None) => app.out.note(&format!("{shown} {noun}s are shown, and there are more; {how}")),
    }
    if listed.unreadable > 0 {
        let plural = if listed.unreadable == 1 { "" } else { "s" };
        app.out.note(&format!("left out {} {noun}{plural} without a name", listed.unreadable));
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    #[test]
    fn the_id_of_a_run_may_hold_colons_and_slashes_and_may_not_lead_to_another_path() {
        let is_taken = |name: &str| {
            let command = Command::new("stop").arg(Arg::new("run").value_parser(path_name()));
            command.try_get_matches_from(["stop", name]).is_ok()
        };
        for name in ["a:b/c", "9e3779b97f4a7c15", "oauth-client-1f3a", "v1..2"] {
            assert!(is_taken(name), "{name}");
        }
        for name in ["", " ", ".", "..", "a/../b", "a\\..\\b", " ../b"] {
            assert!(!is_taken(name), "{name}");
        }
    }
}
