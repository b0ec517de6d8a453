//! All workflows of a tenant of the argo generation, the newest first. Only commands list.

use serde_json::json;

use super::Tenant;
use super::documents::Hits;
use super::listed::{Listed, MOST_LISTED, Page, pages};
use super::runs::newest_created_first;
use super::send::Call;
use super::workflows::{SOURCE, Workflow, WorkflowHit};
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
                let found = self.page::<Hits<WorkflowHit>>(size, from, |size| search(from, size)).await?;
                Ok(Page::of(found, WorkflowHit::into_workflow))
            },
        )
        .await
    }
}

fn search(from: usize, size: usize) -> Call {
    let body = json!({"from": from, "size": size, "track_total_hits": true, "query": {"match_all": {}},
        "sort": newest_created_first(), "_source": SOURCE});
    Call::post("workflows.list", "api/service/workflows/indexsearch", Some(body)).needs("the right to see workflows")
}
