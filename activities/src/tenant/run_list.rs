//! Runs as a person looks for them: by workflow, phase and time, the newest first. Only commands list; activities look at runs that they
//! know.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Tenant;
use super::app_runs::{self, ROOT, RunEntity};
use super::documents::{Entities, Hits};
use super::listed::{Listed, MOST_LISTED, Page, pages};
use super::runs::{Run, RunHit, SOURCE, newest_created_first, of_workflow};
use super::send::Call;
use crate::failure::Failure;

/// How many runs one page of a search holds.
const PAGE: usize = 50;

/// Which runs are listed. What is empty is not asked for.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this workflow; of an app, its slug.
    pub workflow: Option<String>,
    /// In one of these phases, as the tenant writes them.
    pub phases: Vec<String>,
    /// Created at this time or later, on the tenant's clock. Of an app, started: a run that has not started yet is listed too.
    pub since: Option<Timestamp>,
}

impl Tenant {
    /// The runs of workflows that match, the newest first, at most `limit` of them.
    pub async fn list_runs(&self, filter: &RunFilter, limit: usize) -> Result<Listed<Run>, Failure> {
        let query = workflow_query(filter);
        pages(
            limit.min(MOST_LISTED),
            PAGE,
            |run: &Run| &run.name,
            async |from, size| {
                let found = self.page::<Hits<RunHit>>(size, from, |size| run_search(from, size, &query)).await?;
                Ok(Page::of(found, RunHit::into_run))
            },
        )
        .await
    }

    /// The runs of apps that match and that the index shows: those that have not started yet, then the newest first.
    pub async fn list_app_runs(&self, filter: &RunFilter, limit: usize) -> Result<Listed<Run>, Failure> {
        let filters = app_filters(filter);
        pages(
            limit.min(MOST_LISTED),
            PAGE,
            |run: &Run| &run.name,
            async |from, size| {
                let search = |size| app_runs::search("app_runs.list", from, size, &filters);
                let found = self.page::<Entities<RunEntity>>(size, from, search).await?;
                Ok(Page::of(found, RunEntity::into_run))
            },
        )
        .await
    }
}

fn run_search(from: usize, size: usize, query: &Value) -> Call {
    let body = json!({"from": from, "size": size, "track_total_hits": true, "query": query, "sort": newest_created_first(),
        "_source": SOURCE});
    Call::post("runs.list", "api/service/runs/indexsearch", Some(body)).needs("the right to see workflow runs")
}

fn workflow_query(filter: &RunFilter) -> Value {
    let mut filters = Vec::new();
    if let Some(workflow) = &filter.workflow {
        filters.push(of_workflow(workflow));
    }
    if !filter.phases.is_empty() {
        filters.push(json!({"terms": {"status.phase.keyword": filter.phases}}));
    }
    if let Some(since) = filter.since {
        let range = json!({"range": {"metadata.creationTimestamp": {"gte": since.to_string()}}});
        filters.push(json!({"nested": {"path": "metadata", "query": range}}));
    }
    json!({"bool": {"filter": filters}})
}

fn app_filters(filter: &RunFilter) -> Vec<Value> {
    let start = filter.workflow.as_ref().map_or_else(|| ROOT.to_owned(), |slug| format!("{ROOT}{slug}/"));
    let mut filters = vec![json!({"prefix": {"qualifiedName": {"value": start, "case_insensitive": false}}})];
    if !filter.phases.is_empty() {
        filters.push(json!({"terms": {"appWorkflowRunStatus": filter.phases}}));
    }
    if let Some(since) = filter.since {
        let started = json!({"range": {"appWorkflowRunStartedAt": {"gte": since.as_millisecond()}}});
        let waiting = json!({"bool": {"must_not": [{"exists": {"field": "appWorkflowRunStartedAt"}}]}});
        filters.push(json!({"bool": {"should": [started, waiting]}}));
    }
    filters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock};

    #[tokio::test]
    async fn a_search_for_runs_asks_for_what_the_filter_says_and_reads_until_the_total() {
        let page = |names: &[&str], total: usize| {
            let hits: Vec<_> = names.iter().map(|name| json!({"_id": name, "_source": {"status": {"phase": "Failed"}}})).collect();
            Reply::ok(&json!({"hits": {"total": {"value": total, "relation": "eq"}, "hits": hits}}))
        };
        let server = Scripted::script([page(&["a", "b"], 3), page(&["c"], 3)]).await;
        let filter = RunFilter {
            workflow: Some("w".into()),
            phases: vec!["Failed".into()],
            since: Some("2026-01-01T00:00:00Z".parse().expect("a time")),
        };
        let found = server.tenant(&clock()).list_runs(&filter, 10).await.expect("an answer");
        assert_eq!((found.rows.len(), found.total, found.more), (3, Some(3), false));
        let asked = server.requests();
        assert_eq!((&asked[0].body["from"], &asked[0].body["size"], &asked[1].body["from"]), (&json!(0), &json!(10), &json!(2)));
        let filters = asked[0].body["query"]["bool"]["filter"].to_string();
        for part in ["\"w\"", "\"Failed\"", "2026-01-01T00:00:00Z"] {
            assert!(filters.contains(part), "{part} is missing in {filters}");
        }
    }

    #[tokio::test]
    async fn no_hits_at_all_are_an_empty_list_only_beside_a_total_of_zero() {
        for (body, expected) in [
            (json!({"hits": {"total": {"value": 0}, "hits": null}}), Ok(0)),
            (json!({"hits": {"total": {"value": 0}, "hits": []}}), Ok(0)),
            (json!({"hits": {"total": {"value": 4}, "hits": null}}), Err("tenant.unreadable")),
            (json!({"hits": {"total": 0, "hits": null}}), Ok(0)),
            (json!({"hits": {"total": 4, "hits": null}}), Err("tenant.unreadable")),
            (json!({"hits": {"total": [4], "hits": []}}), Ok(0)),
            (json!({}), Err("tenant.unreadable")),
        ] {
            let server = Scripted::script([Reply::ok(&body)]).await;
            let found = server.tenant(&clock()).list_runs(&RunFilter::default(), 10).await;
            assert_eq!(found.as_ref().map(|found| found.rows.len()).map_err(|failure| failure.code.as_ref()), expected, "{body}");
        }
    }
}
