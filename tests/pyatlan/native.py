"""pyatlan 11, unchanged, against a tenant of the native generation: the whole client of /v1/app."""

import time

from common import applies, client, raises, sandbox
from pyatlan.errors import ApiError, InvalidRequestError, NotFoundError
from pyatlan.model.app import AppSchedule
from pyatlan.model.assets import AppWorkflowRun
from pyatlan.model.enums import AppWorkflowRunStatus
from pyatlan.model.fluent_search import CompoundQuery, FluentSearch

APP = "bq-prod-3f9ab2c1"
LONG = "redshift-dwh-9a4be150"
ROOT = "default/apps/automation_engine/workflows/"

atlan = client()
started = {}


def ended(run_id):
    """Polls as the vendor's documentation does; the end of the whole bounds it."""
    while not (found := atlan.app.get_run(run_id)).is_terminal:
        time.sleep(0.2)
    return found


def submits(slug):
    return [request for request in sandbox("requests") if request["target"].endswith(f"{slug}/submit")]


def a_run_that_will_fail_is_submitted():
    with applies("app_run_submitted") as effects:
        started["failing"] = atlan.app.submit("postgres-crm-18c2d9e6").run_id
    assert started["failing"] == effects[0]["run"]


def an_app_and_its_contract_are_described():
    info = atlan.app.describe("bigquery-crawler")
    assert (info.app_id, info.native_ready, info.execution_mode) == ("bigquery-crawler", True, "native")
    assert [entrypoint.name for entrypoint in info.entrypoints] == ["crawler"]
    assert not atlan.app.describe("csa-api-token-connection-admin").native_ready
    contract = atlan.app.get_input_contract("snowflake-miner", "miner")
    assert (contract.title, contract.type, contract.required_fields()) == ("AppInputContract", "object", ["connection"])
    assert "extraction_method" in contract.field_names()
    assert contract.credential_field() == "credential_guid"
    with raises(InvalidRequestError, "1003", "unknown entrypoint"):
        atlan.app.get_input_contract("bigquery-crawler", "other")
    with raises(NotFoundError):
        atlan.app.describe("none")


def a_workflow_is_created_once_and_reused_by_its_name():
    with applies("app_created") as effects:
        made = atlan.app.create("snowflake-crawler", "made here", {"extraction_method": "direct"}, run=False)
    assert (made.slug, made.run_id, made.execution_mode) == (effects[0]["slug"], None, "native")
    with applies():
        again = atlan.app.create("snowflake-crawler", "made here", {}, run=True)
    assert (again.slug, again.run_id) == (made.slug, None), "reused, and not run"
    with raises(Exception, "tableau-sales-0b6f8d23"):
        atlan.app.create("atlan-tableau", "tableau-sales", {})
    with raises(InvalidRequestError, "1000", "'hidden_datasets' must be of type"):
        atlan.app.create("snowflake-crawler", "another", {"hidden_datasets": "yes"})
    with applies("app_created", "app_scheduled", "app_run_submitted") as effects:
        schedule = AppSchedule(cron="0 9 * * *", timezone="UTC")
        whole = atlan.app.create("snowflake-miner", "whole", {"connection": {}}, entrypoint="miner", schedule=schedule)
    assert (whole.run_id, whole.schedule_trigger_id) == (effects[2]["run"], effects[1]["trigger"])
    assert not atlan.app.get_run(whole.run_id).is_terminal


def workflows_are_listed_page_by_page_and_by_exact_name():
    seen, cursor = [], None
    for _ in range(10):
        page = atlan.app.get_all(limit=4, cursor=cursor)
        seen += [workflow.name for workflow in page.workflows]
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert (len(seen), seen[0], seen[-1]) == (9, "whole", "bq-prod"), seen
    [named] = atlan.app.get_all(name="bq-prod").workflows
    assert (named.slug, named.owner, named.app_id) == (APP, "jane", "bigquery-crawler")
    assert atlan.app.get_all(name="bq").workflows == []


def a_workflow_is_replaced_scheduled_and_deleted():
    slug = atlan.app.get_all(name="made here").workflows[0].slug
    before = atlan.app.get(slug)
    with applies("app_updated") as effects:
        after = atlan.app.update(slug, {"temp_table_regex": "tmp_.*"})
    assert (after.slug, after.version) == (slug, effects[0]["version"]) and after.version > before.version
    assert atlan.app.get(slug).dict()["dag"]["extract"]["inputs"]["args"] == {"temp_table_regex": "tmp_.*"}
    with applies("app_scheduled") as effects:
        added = atlan.app.add_schedule(slug, "0 9 * * *")
    assert (added.trigger_id, added.cron, added.timezone) == (effects[0]["trigger"], "0 9 * * *", "UTC")
    assert [one["trigger_id"] for one in atlan.app.get(slug).schedules] == [added.trigger_id]
    with applies("app_unscheduled"):
        assert atlan.app.remove_schedule(slug, added.trigger_id).deleted
    assert atlan.app.get(slug).schedules == []
    with raises(NotFoundError):
        atlan.app.remove_schedule(slug, added.trigger_id)
    with applies("app_deleted"):
        assert atlan.app.delete(slug).archived
    with raises(NotFoundError):
        atlan.app.get(slug)
    with raises(NotFoundError):
        atlan.app.submit(slug)


def a_run_is_submitted_followed_and_found_in_the_index():
    with applies("app_run_submitted") as effects:
        answer = atlan.app.submit(APP)
    assert (answer.slug, answer.run_id, APP) == (APP, effects[0]["run"], effects[0]["slug"])
    assert effects[0]["request_id"], "the client names its request"
    with raises(ApiError, "AE-WF-409-03"):
        atlan.app.submit(APP)
    assert [request["status"] for request in submits(APP)] == [200, 500], "a 500 is not asked again"
    with raises(InvalidRequestError, "ATLAN-PYTHON-400-080"):
        atlan.app.submit(APP, idempotent=True)
    assert len(submits(APP)) == 2, "the search was enough"
    over = ended(answer.run_id)
    assert (over.status, over.slug) == ("Succeeded", APP) and over.started_at
    request = (
        FluentSearch()
        .where(CompoundQuery.active_assets())
        .where(CompoundQuery.asset_type(AppWorkflowRun))
        .where(AppWorkflowRun.QUALIFIED_NAME.startswith(f"{ROOT}{APP}/"))
        .sort(AppWorkflowRun.APP_WORKFLOW_RUN_STARTED_AT.order())
        .include_on_results(AppWorkflowRun.APP_WORKFLOW_RUN_STATUS)
        .include_on_results(AppWorkflowRun.APP_WORKFLOW_RUN_STARTED_AT)
        .to_request()
    )
    newest = list(atlan.asset.search(request))[-1]
    assert newest.qualified_name == f"{ROOT}{APP}/{answer.run_id}"
    assert newest.app_workflow_run_status == AppWorkflowRunStatus.SUCCEEDED
    assert newest.app_workflow_run_started_at.timestamp() > 1_700_000_000


def an_idempotent_submit_starts_an_idle_workflow_and_waits_for_a_lagging_index():
    with applies("app_run_submitted"):
        answer = atlan.app.submit("snowflake-prod-5d01c7aa", idempotent=True)
    assert atlan.app.cancel_run(answer.run_id).cancelled
    # Another workflow, since the lagging index still shows the first one's run as pending.
    slug = "snowflake-queries-77e3b0f4"
    sandbox("index-lag", {"ms": 4000})
    with applies("app_run_submitted"):
        answer = atlan.app.submit(slug)
    with raises(InvalidRequestError, "ATLAN-PYTHON-400-080"):
        atlan.app.submit(slug, idempotent=True)
    assert [request["status"] for request in submits(slug)] == [200, 500], "the index did not show the run at first"
    sandbox("index-lag", {"ms": 0})
    assert atlan.app.cancel_run(answer.run_id).cancelled


def a_run_that_fails_is_followed_to_its_end():
    found = ended(started["failing"])
    assert (found.status, found.is_terminal, found.is_success) == ("Failed", True, False)


def a_run_is_cancelled_once():
    run_id = atlan.app.submit("snowflake-prod-5d01c7aa").run_id
    with applies("app_run_cancelled") as effects:
        answer = atlan.app.cancel_run(run_id)
    assert (answer.run_id, answer.cancelled, answer.status) == (effects[0]["run"], True, "Stopped") and answer.run_id == run_id
    found = atlan.app.get_run(run_id)
    assert (found.status, found.is_terminal, found.is_success) == ("Stopped", True, False)
    with raises(InvalidRequestError, "not active"):
        atlan.app.cancel_run(run_id)
    with raises(NotFoundError):
        atlan.app.get_run("none")


STEPS = [
    a_run_that_will_fail_is_submitted,
    an_app_and_its_contract_are_described,
    a_workflow_is_created_once_and_reused_by_its_name,
    workflows_are_listed_page_by_page_and_by_exact_name,
    a_workflow_is_replaced_scheduled_and_deleted,
    a_run_is_submitted_followed_and_found_in_the_index,
    an_idempotent_submit_starts_an_idle_workflow_and_waits_for_a_lagging_index,
    a_run_is_cancelled_once,
    a_run_that_fails_is_followed_to_its_end,
]
