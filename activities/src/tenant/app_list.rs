//! All apps of a tenant of the native generation, page by page along its cursor, and one by its slug. Only commands list.

use jiff::Timestamp;
use serde::Deserialize;

use super::Tenant;
use super::answer::{Count, Element, Exact, Flag, Lenient, List, NAME, Text, Time};
use super::apps::is_absence;
use super::listed::{Listed, MOST_LISTED, MOST_PAGES};
use super::runs::Kind;
use super::send::Call;
use super::target::{encoded, segment};
use crate::failure::Failure;

/// How many apps one page holds.
const PAGE: usize = 50;
const NEEDS: &str = "the right to see apps";

/// A workflow made of an app, as the tenant shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// What it is submitted by, as in `bq-prod-3f9ab2c1`.
    pub slug: String,
    /// What people call it; others may be called the same.
    pub name: Option<String>,
    /// The app that it is made of, as in `bigquery-crawler`.
    pub app_id: Option<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// Its version, which grows with every change.
    pub version: Option<u64>,
    /// When it was created, where the tenant says so.
    pub created_at: Option<Timestamp>,
}

/// A page of apps, and where the next one begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AppPage {
    workflows: List<Lenient<AppRecord>>,
    has_more: Flag,
    next_cursor: Exact,
}

/// An app, as it is listed and shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AppRecord {
    slug: Exact,
    name: Text<NAME>,
    app_id: Text<NAME>,
    owner: Text<NAME>,
    version: Count,
    created_at: Time,
}

impl Element for AppRecord {}

impl AppRecord {
    fn into_app(self) -> Option<App> {
        Some(App {
            slug: self.slug.0?,
            name: self.name.0,
            app_id: self.app_id.0,
            owner: self.owner.0,
            version: self.version.whole(),
            created_at: self.created_at.0,
        })
    }
}

impl Tenant {
    /// All apps, in the tenant's order, at most `limit` of them. A failure if the tenant has no apps at all.
    pub async fn list_apps(&self, limit: usize) -> Result<Listed<App>, Failure> {
        let limit = limit.min(MOST_LISTED);
        let mut listed = Listed::new();
        let (mut cursor, mut cut): (Option<String>, usize) = (None, 0);
        for _ in 0..MOST_PAGES {
            if !listed.more || listed.rows.len() >= limit {
                break;
            }
            let wanted = PAGE.min(limit - listed.rows.len());
            let (call, page) = match self.read_page::<AppPage>(wanted, |size| list(size, cursor.as_deref())).await {
                Err(failure) if is_absence(&failure) => return Err(self.lacks(Kind::App, failure)),
                answer => answer.map(|(call, _, page)| (call, page))?,
            };
            let (apps, count) = page.workflows.into_items().ok_or_else(|| self.unexpected(&call, "it has no list of workflows"))?;
            let not_kept = count.saturating_sub(apps.len());
            cut += not_kept;
            let apps: Vec<_> = apps.into_iter().filter_map(|Lenient(app)| app.into_app()).collect();
            listed.unreadable += count.saturating_sub(not_kept + apps.len());
            listed.rows.extend(apps);
            listed.more = page.has_more.0 == Some(true);
            if listed.more && page.next_cursor.0.is_none() {
                return Err(self.unexpected(&call, "it has more pages and does not say where"));
            }
            // A page that is empty, or leads to itself, would be read for ever.
            if count == 0 || page.next_cursor.0 == cursor {
                break;
            }
            cursor = page.next_cursor.0;
        }
        listed.more |= cut > 0;
        Ok(listed)
    }

    /// The app of this slug. A failure if the tenant has no apps at all.
    pub async fn app(&self, slug: &str) -> Result<Option<App>, Failure> {
        let call = Call::get("apps.show", format!("api/service/v1/app/{}", segment(slug))).needs(NEEDS);
        let Some(shown) = self.read_of_apps::<AppRecord>(&call).await? else { return Ok(None) };
        let app = shown.into_app().filter(|app| app.slug == slug);
        app.map(Some).ok_or_else(|| self.unexpected(&call, "it does not show that app"))
    }
}

fn list(limit: usize, cursor: Option<&str>) -> Call {
    let cursor = cursor.map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
    Call::get("apps.list", format!("api/service/v1/app?limit={limit}{cursor}")).needs(NEEDS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::MOST_PAGES;
    use crate::tenant::TenantSettings;
    use crate::tenant::scripted::{Reply, Scripted, clock, tenants};

    fn answer(slugs: &[&str], next: Option<&str>) -> Reply {
        let workflows: Vec<_> = slugs.iter().map(|slug| json!({"slug": slug, "name": "n", "version": 1})).collect();
        Reply::ok(&json!({"workflows": workflows, "has_more": next.is_some(), "next_cursor": next}))
    }

    #[tokio::test]
    async fn apps_are_read_along_the_cursor_to_the_end_or_to_the_limit() {
        let server = Scripted::script([answer(&["a", "b"], Some("x/y")), answer(&["c"], None)]).await;
        let found = server.tenant(&clock()).list_apps(100).await.expect("an answer");
        assert_eq!((found.rows.len(), found.more), (3, false));
        assert_eq!(server.requests()[1].target, "/api/service/v1/app?limit=50&cursor=x%2Fy");
        let server = Scripted::script([answer(&["a", "b"], Some("x"))]).await;
        let found = server.tenant(&clock()).list_apps(2).await.expect("an answer");
        assert_eq!((found.rows.len(), found.more), (2, true));
    }

    #[tokio::test]
    async fn a_cursor_that_leads_nowhere_is_not_followed_for_ever() {
        let server = Scripted::script([answer(&["a"], Some("x")), answer(&["b"], Some("x"))]).await;
        let found = server.tenant(&clock()).list_apps(100).await.expect("an answer");
        assert_eq!((found.rows.len(), found.more), (2, true));
        let server = Scripted::script([Reply::ok(&json!({"workflows": [], "has_more": true}))]).await;
        assert_eq!(server.tenant(&clock()).list_apps(100).await.expect_err("it is unreadable").code, "tenant.unreadable");
    }

    #[tokio::test]
    async fn a_tenant_without_apps_is_said_to_have_none() {
        let server = Scripted::script([Reply::json(404, &json!({"message": "no route"}))]).await;
        assert_eq!(server.tenant(&clock()).list_apps(100).await.expect_err("it has none").code, "generation.unsupported");
    }

    #[tokio::test]
    async fn a_page_of_apps_that_is_too_long_is_asked_for_again_with_half_as_many() {
        let huge = "x".repeat(64 * 1024 * 1024);
        let server = Scripted::script([Reply::ok(&json!({"workflows": [], "pad": huge})), answer(&["a"], None)]).await;
        let found = server.tenant(&clock()).list_apps(40).await.expect("an answer");
        assert_eq!((found.rows.len(), found.more), (1, false));
        let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(targets, ["/api/service/v1/app?limit=40", "/api/service/v1/app?limit=20"]);
    }

    #[tokio::test]
    async fn a_tenant_whose_pages_never_end_and_name_no_app_is_left_after_a_bound() {
        let server = Scripted::answering(|request| {
            let number = request.target.split("cursor=").nth(1).map_or(Some(0), |number| number.parse::<usize>().ok())?;
            let next = (number + 1).to_string();
            Some(Reply::ok(&json!({"workflows": [{"slug": null}], "has_more": true, "next_cursor": next})))
        });
        let server = server.await;
        let settings = TenantSettings { request_burst: 2_000, ..server.settings() };
        let tenant = tenants(settings, &clock()).get("default").expect("it was configured");
        let found = tenant.list_apps(100).await.expect("an answer");
        assert_eq!((found.rows.len(), found.unreadable, found.more), (0, MOST_PAGES, true));
    }
}
