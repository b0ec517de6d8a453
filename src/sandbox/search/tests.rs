//! The query subset over a few documents, with requests as the vendor's client sends them.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn run(name: &str, template: &str, phase: &str, started: Option<i64>, finished: Option<i64>) -> Document {
    let at = |at: Option<i64>| at.map(super::super::time::seconds);
    let source = json!({
        "metadata": { "name": name, "creationTimestamp": at(started),
            "labels": { "workflows.argoproj.io/phase": phase, "workflows.argoproj.io/creator": "u-1" },
            "annotations": { "package.argoproj.io/name": "@atlan/snowflake" } },
        "spec": { "workflowTemplateRef": { "name": template } },
        "status": { "phase": phase, "startedAt": at(started), "finishedAt": at(finished) }
    });
    Document { id: name.to_owned(), source }
}

fn documents() -> Vec<Document> {
    let hour = 3_600_000;
    vec![
        run(
            "atlan-snowflake-1684500500-aaaaa",
            "atlan-snowflake-1684500500",
            "Failed",
            Some(NOW - 90 * 60_000),
            Some(NOW - 70 * 60_000),
        ),
        run(
            "atlan-snowflake-miner-1684500600-bbbbb",
            "atlan-snowflake-miner-1684500600",
            "Succeeded",
            Some(NOW - 3 * hour),
            Some(NOW - hour),
        ),
        run("atlan-snowflake-1684500500-ccccc", "atlan-snowflake-1684500500", "Pending", None, None),
    ]
}

fn search(body: &Value) -> Result<Vec<String>, String> {
    let search = Search::parse(body, &WORKFLOWS, NOW).map_err(|error| error.to_string())?;
    Ok(search.page(documents().into_iter()).hits.into_iter().map(|(document, _)| document.id).collect())
}

fn query(query: &Value) -> Result<Vec<String>, String> {
    search(&json!({ "query": query }))
}

fn name_query(clause: &str, value: &Value) -> Result<Vec<String>, String> {
    query(&json!({ "nested": { "path": "metadata", "query": { clause: { "metadata.name.keyword": value } } } }))
}

#[test]
fn a_regexp_is_anchored_and_tells_a_crawler_from_its_miner() {
    let found = name_query("regexp", &json!({ "value": "atlan[-]snowflake[-][0-9]{10}-[a-z]{5}" }));
    assert_eq!(found.expect("understood").len(), 2);
    assert_eq!(name_query("regexp", &json!({ "value": "atlan[-]snowflake" })), Ok(vec![]));
    assert_eq!(name_query("regexp", &json!(".*miner.+b?")).expect("understood").len(), 1);
    assert_eq!(name_query("regexp", &json!("a\\-b|atlan.*c{5}")).expect("understood").len(), 1);
}

#[test]
fn a_regexp_operator_of_lucene_is_refused() {
    for pattern in ["~abc", "a<1-9>", "@", "\\d", "(?i)a", "a[", "a\\"] {
        assert!(name_query("regexp", &json!(pattern)).is_err(), "{pattern}");
    }
}

#[test]
fn terms_and_prefixes_match_whole_values_and_may_ignore_case() {
    assert_eq!(name_query("prefix", &json!("atlan-snowflake")).expect("understood").len(), 3);
    assert_eq!(name_query("prefix", &json!({ "value": "ATLAN", "case_insensitive": true })).expect("understood").len(), 3);
    assert_eq!(name_query("term", &json!("atlan-snowflake")), Ok(vec![]));
    let ids = json!({ "terms": { "_id": ["atlan-snowflake-1684500500-aaaaa", "other"] } });
    assert_eq!(query(&ids).expect("understood").len(), 1);
}

#[test]
fn a_label_with_dots_and_a_slash_is_one_key() {
    let found = query(&json!({ "nested": { "path": "metadata", "query": {
        "term": { "metadata.annotations.package.argoproj.io/name.keyword": "@atlan/snowflake" } } } }));
    assert_eq!(found.expect("understood").len(), 3);
}

#[test]
fn runs_are_found_by_status_and_time_range_as_the_vendors_client_asks() {
    let found = search(&json!({ "from": 0, "size": 2, "track_total_hits": true, "query": { "bool": { "must": [
        { "nested": { "path": "metadata", "query": { "terms": { "metadata.labels.workflows.argoproj.io/phase.keyword": ["Failed", "Error"] } } } },
        { "range": { "status.startedAt": { "gte": "now-2h" } } },
        { "range": { "status.finishedAt": { "lte": "now-1h" } } },
        { "nested": { "path": "metadata", "query": { "exists": { "field": "metadata.labels.workflows.argoproj.io/creator" } } } } ] } },
        "sort": [{ "metadata.creationTimestamp": { "order": "desc", "nested": { "path": "metadata" } } }] }));
    assert_eq!(found, Ok(vec!["atlan-snowflake-1684500500-aaaaa".to_owned()]));
}

#[test]
fn sorting_puts_missing_values_last_in_both_directions_unless_it_is_told_otherwise() {
    for (order, first) in [("desc", "aaaaa"), ("asc", "bbbbb")] {
        let found = search(&json!({ "sort": [{ "status.startedAt": { "order": order } }] })).expect("understood");
        assert!(found[0].ends_with(first), "{order}: {found:?}");
        assert!(found[2].ends_with("ccccc"), "{order}: {found:?}");
        let sort = json!([{ "status.startedAt": { "order": order, "missing": "_first" } }]);
        let found = search(&json!({ "sort": sort })).expect("understood");
        assert!(found[0].ends_with("ccccc") && found[1].ends_with(first), "{order}: {found:?}");
    }
}

#[test]
fn should_and_must_not_count_as_in_elasticsearch() {
    let phase = |phase: &str| json!({ "term": { "status.phase.keyword": { "value": phase } } });
    let either = json!({ "bool": { "should": [phase("Failed"), phase("Pending")] } });
    assert_eq!(query(&either).expect("understood").len(), 2);
    let optional = json!({ "bool": { "should": [phase("Failed")], "filter": { "match_all": {} } } });
    assert_eq!(query(&optional).expect("understood").len(), 3);
    let both = json!({ "bool": { "should": [phase("Failed"), phase("Pending")], "minimum_should_match": 2 } });
    assert_eq!(query(&both), Ok(vec![]));
    assert_eq!(query(&json!({ "bool": { "must_not": [phase("Failed")] } })).expect("understood").len(), 2);
}

#[test]
fn pages_follow_from_and_size_and_end_empty() {
    let page = |from: usize| {
        let search = Search::parse(&json!({ "from": from, "size": 2 }), &WORKFLOWS, NOW).expect("understood");
        let page = search.page(documents().into_iter());
        (page.hits.len(), page.total)
    };
    assert_eq!([page(0), page(2), page(4)], [(2, 3), (1, 3), (0, 3)]);
}

#[test]
fn whatever_is_unknown_is_named_in_the_error() {
    let nested = |clause: Value| json!({ "nested": { "path": "metadata", "query": clause } });
    let cases = [
        (json!({ "query": { "match": { "_id": "x" } } }), "unknown query [match]"),
        (json!({ "query": { "bool": { "boost": 1 } } }), "[bool] query does not support [boost]"),
        (json!({ "query": { "term": { "_id": { "value": "x", "boost": 2 } } } }), "[term] query does not support [boost]"),
        (json!({ "query": { "term": { "_id": null } } }), "[term] needs a scalar"),
        (json!({ "query": { "term": { "metadata.name.keyword": "x" } } }), "needs nested path [metadata]"),
        (json!({ "query": nested(json!({ "term": { "status.phase.keyword": "x" } })) }), "is not below nested path [metadata]"),
        (json!({ "query": nested(json!({ "term": { "metadata.name": "x" } })) }), "use [metadata.name.keyword]"),
        (json!({ "query": { "nested": { "path": "status", "query": { "match_all": {} } } } }), "under path [status]"),
        (json!({ "query": { "term": { "name": "x" } } }), "no mapping found for [name]"),
        (json!({ "query": { "range": { "status.startedAt": { "gte": "now/q" } } } }), "failed to parse date"),
        (json!({ "query": { "range": { "status.startedAt": { "from": 1 } } } }), "[range] query does not support [from]"),
        (json!({ "sort": [{ "metadata.creationTimestamp": "desc" }] }), "needs nested path [metadata]"),
        (json!({ "sort": ["status.phase"] }), "cannot be sorted on"),
        (json!({ "aggregations": { "a": {} } }), "unknown key [aggregations]"),
        (json!({ "size": 10_001 }), "result window is too large"),
        (json!({ "from": -1 }), "[from] must be a whole number"),
    ];
    for (body, expected) in cases {
        let error = search(&body).expect_err("refused");
        assert!(error.contains(expected), "{body}: {error}");
    }
}

#[test]
fn a_required_value_is_seen_through_bool_and_nested() {
    let body = json!({ "query": { "bool": { "filter": [{ "nested": { "path": "spec", "query": {
        "term": { "spec.workflowTemplateRef.name.keyword": { "value": "t" } } } } }] } } });
    let search = Search::parse(&body, &WORKFLOWS, NOW).expect("understood");
    assert_eq!(search.required("spec.workflowTemplateRef.name"), Some(&["t".to_owned()][..]));
    assert_eq!(search.required("_id"), None);
}
