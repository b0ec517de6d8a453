//! All apps of a tenant of the native generation, page by page along its cursor, and one by its slug. Only commands list.

use jiff::Timestamp;
use serde_json::Value;

use super::Tenant;
use super::apps::is_absence;
use super::listed::{Listed, MOST_LISTED};
use super::runs::{Kind, segment, text};
use super::send::Call;
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

/// One page, and where the next one begins.
struct Page {
    elements: usize,
    apps: Vec<App>,
    next: Option<String>,
}

impl Tenant {
    /// All apps, in the tenant's order, at most `limit` of them. A failure if the tenant has no apps at all.
    pub async fn list_apps(&self, limit: usize) -> Result<Listed<App>, Failure> {
        let limit = limit.min(MOST_LISTED);
        let mut listed = Listed::new();
        let mut cursor: Option<String> = None;
        while listed.more && listed.rows.len() < limit {
            let call = list(PAGE.min(limit - listed.rows.len()), cursor.as_deref());
            let body = match self.read(&call).await {
                Err(failure) if is_absence(&failure) => return Err(self.lacks(Kind::App, failure)),
                body => body?,
            };
            let page = page(&body).map_err(|problem| self.unexpected(&call, problem))?;
            listed.unreadable += page.elements - page.apps.len();
            listed.rows.extend(page.apps);
            listed.more = page.next.is_some();
            // A page that is empty, or leads to itself, would be read for ever.
            if page.elements == 0 || page.next == cursor {
                break;
            }
            cursor = page.next;
        }
        Ok(listed)
    }

    /// The app of this slug. A failure if the tenant has no apps at all.
    pub async fn app(&self, slug: &str) -> Result<Option<App>, Failure> {
        let call = Call::get("apps.show", format!("api/service/v1/app/{}", segment(slug))).needs(NEEDS);
        let Some(body) = self.read_of_apps(&call).await? else { return Ok(None) };
        let app = decode(&body).filter(|app| app.slug == slug);
        app.map(Some).ok_or_else(|| self.unexpected(&call, "it does not show that app"))
    }
}

fn list(limit: usize, cursor: Option<&str>) -> Call {
    let cursor = cursor.map(|cursor| format!("&cursor={}", segment(cursor))).unwrap_or_default();
    Call::get("apps.list", format!("api/service/v1/app?limit={limit}{cursor}")).needs(NEEDS)
}

fn page(body: &Value) -> Result<Page, &'static str> {
    let elements = body["workflows"].as_array().ok_or("it has no list of workflows")?;
    let next = match (body["has_more"].as_bool().unwrap_or_default(), text(&body["next_cursor"])) {
        (true, None) => return Err("it has more pages and does not say where"),
        (true, next) => next,
        (false, _) => None,
    };
    Ok(Page { elements: elements.len(), apps: elements.iter().filter_map(decode).collect(), next })
}

fn decode(summary: &Value) -> Option<App> {
    Some(App {
        slug: text(&summary["slug"])?,
        name: text(&summary["name"]),
        app_id: text(&summary["app_id"]),
        owner: text(&summary["owner"]),
        version: summary["version"].as_u64(),
        created_at: summary["created_at"].as_str().and_then(|at| at.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tenant::scripted::{Reply, Scripted, clock};

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
}
