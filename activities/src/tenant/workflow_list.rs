//! All workflows of a tenant of the argo generation, the newest first. Only commands list.

use serde_json::{Value, json};

use super::Tenant;
use super::listed::{Listed, MOST_LISTED, Page, pages};
use super::run_list::found;
use super::runs::newest_created_first;
use super::send::Call;
use super::workflows::{Workflow, decode};
use crate::failure::Failure;

/// How many workflows one page of a search holds.
const PAGE: usize = 50;

impl Tenant {
    /// All workflows, the newest first, at most `limit` of them.
    pub async fn list_workflows(&self, limit: usize) -> Result<Listed<Workflow>, Failure> {
        pages(
            limit.min(MOST_LISTED),
            PAGE,
            |workflow: &Workflow| &workflow.name,
            async |from, size| {
                let call = search(from, size);
                let body = self.read(&call).await?;
                page(&body).map_err(|problem| self.unexpected(&call, &problem))
            },
        )
        .await
    }
}

fn search(from: usize, size: usize) -> Call {
    let body = json!({"from": from, "size": size, "track_total_hits": true, "query": {"match_all": {}},
        "sort": newest_created_first()});
    Call::post("workflows.list", "api/service/workflows/indexsearch", Some(body)).needs("the right to see workflows")
}

fn page(body: &Value) -> Result<Page<Workflow>, String> {
    let (found, total) = found(body)?;
    let rows = found.iter().filter_map(|hit| decode(&hit["_source"])).collect();
    Ok(Page { elements: found.len(), total, rows })
}
