"""pyatlan 9 and 10, unchanged, against a tenant of the argo generation. Its own pauses are waited for: 10 s before an idempotent
rerun looks, 5 s between two looks of a monitor. The sandbox's runs take longer than the first."""

from datetime import datetime, timedelta, timezone

from common import applies, client, raises, sandbox
from pyatlan.errors import AtlanError, InvalidRequestError, NotFoundError
from pyatlan.model.assets import Asset, Connection
from pyatlan.model.enums import AtlanConnectorType, AtlanWorkflowPhase, WorkflowPackage
from pyatlan.model.fluent_search import CompoundQuery, FluentSearch
from pyatlan.model.packages import APITokenConnectionAdmin
from pyatlan.model.workflow import ScheduleQueriesSearchRequest, Workflow, WorkflowSchedule

PROD = "default/snowflake/1234567890"
PROD_GUID = "c0000000-0000-4000-8000-000000000001"
CI = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99"
CI_USER = "service-account-apikey-33333333-4444-5555-6666-777777777777"
CRAWLER = "atlan-snowflake-1684500500"
MINER = "atlan-snowflake-miner-1684500600"
GRANT = "csa-api-token-connection-admin-1684500411"

atlan = client()
started = {}


def workflows_are_found_by_type_and_by_name():
    assert [hit.id for hit in atlan.workflow.find_by_type(WorkflowPackage.SNOWFLAKE, max_results=5)] == [CRAWLER]
    assert [hit.id for hit in atlan.workflow.find_by_type(WorkflowPackage.SNOWFLAKE_MINER)] == [MINER]
    newest = atlan.workflow.find_by_type(WorkflowPackage.TABLEAU)
    assert [hit.id for hit in newest] == ["atlan-tableau-1684500901", "atlan-tableau-1684500900"]
    found = atlan.workflow.find_by_id(GRANT)
    assert found.source.metadata.annotations["package.argoproj.io/name"] == "@csa/api-token-connection-admin"
    assert found.source.metadata.creation_timestamp == "2023-05-19T12:46:51Z"
    assert atlan.workflow.find_by_id("none") is None
    assert atlan.workflow.find_by_type(WorkflowPackage.BIGQUERY) == []
    assert atlan.workflow.find_schedule_query("none") == []


def runs_are_found_by_name_phase_and_time():
    run = atlan.workflow.find_run_by_id(f"{GRANT}-t7s8b")
    assert (run.status, run.source.status.finished_at) == (AtlanWorkflowPhase.SUCCESS, "2023-05-19T12:48:10Z")
    assert atlan.workflow.find_run_by_id("none") is None
    succeeded = list(atlan.workflow.get_runs(GRANT, AtlanWorkflowPhase.SUCCESS, size=1))
    assert [run.id for run in succeeded] == [f"{GRANT}-t7s8b"]
    phases = [AtlanWorkflowPhase.RUNNING, AtlanWorkflowPhase.SUCCESS]
    recent = atlan.workflow.find_runs_by_status_and_time_range(phases, started_at="now-2h", size=1)
    assert [run.id for run in recent] == ["atlan-redshift-1684500800-k2v9d"]
    assert not list(atlan.workflow.find_runs_by_status_and_time_range(phases, started_at="now-1M/d", finished_at="now-1d/d"))
    old = atlan.workflow.find_runs_by_status_and_time_range(phases, started_at="2023-05-19||/d", finished_at="2023-05-19||/d")
    assert [run.id for run in old] == [f"{GRANT}-t7s8b"]


def a_package_is_created_and_run():
    package = APITokenConnectionAdmin().config(connection_qualified_name=PROD, api_token_guid=CI).to_workflow()
    with applies("workflow_created", "run_submitted") as effects:
        answer = atlan.workflow.run(package)
    assert answer.metadata.name == package.metadata.name == effects[0]["workflow"] == effects[1]["workflow"]
    assert effects[1]["endpoint"] == "workflows"
    started["package"] = answer
    with raises(AtlanError, "already exists"):
        atlan.workflow.run(package)


def a_rerun_starts_one_run_and_an_idempotent_one_adopts_it():
    with applies("run_submitted") as effects:
        first = atlan.workflow.rerun(WorkflowPackage.SNOWFLAKE)
    assert (first.metadata.name, CRAWLER) == (effects[0]["run"], effects[0]["workflow"])
    assert effects[0]["request_id"], "the client names its request"
    with applies():
        second = atlan.workflow.rerun(WorkflowPackage.SNOWFLAKE, idempotent=True)
    assert (second.metadata.name, second.status.phase) == (first.metadata.name, AtlanWorkflowPhase.RUNNING)


def an_idempotent_rerun_of_an_idle_workflow_starts_it_and_a_stop_fails_it():
    with applies("run_submitted") as effects:
        run = atlan.workflow.rerun(atlan.workflow.find_by_id(MINER), idempotent=True)
    assert run.metadata.name == effects[0]["run"]
    with applies("run_stopped") as effects:
        stopped = atlan.workflow.stop(run.metadata.name)
    assert stopped.metadata.name == effects[0]["run"] == run.metadata.name
    assert stopped.status.phase in (AtlanWorkflowPhase.PENDING, AtlanWorkflowPhase.RUNNING)
    assert atlan.workflow.find_run_by_id(run.metadata.name).status == AtlanWorkflowPhase.FAILED
    with raises(NotFoundError):
        atlan.workflow.stop("none")


def a_monitor_sees_the_end_and_the_grant_has_happened():
    assert atlan.workflow.monitor(started["package"]) == AtlanWorkflowPhase.SUCCESS
    assert atlan.workflow.monitor(workflow_name=CRAWLER) == AtlanWorkflowPhase.SUCCESS
    grants = [effect for effect in sandbox("ledger") if effect["kind"] == "admin_granted_by_run"]
    assert [(grant["connection"], grant["user"]) for grant in grants] == [(PROD, CI_USER)], grants
    assert sorted(admins_found()) == sorted(["jane", CI_USER])


def admins_found():
    request = (
        FluentSearch()
        .where(CompoundQuery.active_assets())
        .where(CompoundQuery.asset_type(Connection))
        .where(Asset.QUALIFIED_NAME.eq(PROD))
        .include_on_results(Connection.ADMIN_USERS)
        .to_request()
    )
    [connection] = list(atlan.asset.search(request))
    assert (connection.qualified_name, connection.guid) == (PROD, PROD_GUID)
    return connection.admin_users


def a_lost_answer_of_a_503_is_asked_for_again_under_the_same_request_id():
    fault = {"path": "triggerAsOwner", "action": {"kind": "status", "status": 503, "headers": [["retry-after", "1"]]}}
    sandbox("faults", fault)
    with applies("run_submitted") as effects:
        run = atlan.workflow.re_run_schedule_query(MINER)
    assert (run.metadata.name, effects[0]["by"], effects[0]["endpoint"]) == (effects[0]["run"], "jane", "triggerAsOwner")
    sent = [request for request in sandbox("requests") if "triggerAsOwner" in request["target"]]
    assert [request["status"] for request in sent] == [503, 200]
    assert sent[0]["request_id"] == sent[1]["request_id"] == effects[0]["request_id"]
    atlan.workflow.stop(run.metadata.name)


def a_member_is_sent_to_the_package_endpoint():
    with applies("run_submitted") as effects:
        run = client("sandbox-member").workflow.rerun(WorkflowPackage.POSTGRES)
    assert (effects[0]["by"], effects[0]["endpoint"]) == ("joe", "package-workflows")
    atlan.workflow.stop(run.metadata.name)


def a_schedule_is_added_shown_and_removed():
    schedule = WorkflowSchedule(timezone="Europe/Paris", cron_schedule="5 4 * * *")
    with applies("workflow_updated"):
        answer = atlan.workflow.add_schedule(atlan.workflow.find_by_id(CRAWLER), schedule)
    assert answer.metadata.annotations["orchestration.atlan.com/schedule"] == "5 4 * * *"
    shown = atlan.workflow.get_scheduled_run(CRAWLER)
    assert shown.metadata.name == f"{CRAWLER}-cron"
    assert (shown.spec.schedule, shown.spec.timezone) == ("5 4 * * *", "Europe/Paris")
    assert [one.metadata.name for one in atlan.workflow.get_all_scheduled_runs()] == [f"{CRAWLER}-cron"]
    with applies("workflow_updated"):
        answer = atlan.workflow.remove_schedule(WorkflowPackage.SNOWFLAKE)
    assert "orchestration.atlan.com/schedule" not in answer.metadata.annotations
    assert not atlan.workflow.get_all_scheduled_runs()
    with raises(NotFoundError):
        atlan.workflow.get_scheduled_run(CRAWLER)


def schedule_queries_are_found_by_name_and_between_dates():
    metadata = {"name": "asq-q1-1795000000", "namespace": "default", "annotations": {
        "package.argoproj.io/name": "@atlan/schedule-query", "orchestration.atlan.com/schedule": "5 4 * * *"}}
    query = Workflow(metadata=metadata, spec={"entrypoint": "main", "templates": []}, payload=[])
    with applies("workflow_created", "run_submitted"):
        atlan.workflow.run(query)
    assert [found.id for found in atlan.workflow.find_schedule_query("q1")] == ["asq-q1-1795000000"]
    day = timedelta(days=1)
    now = datetime.now(timezone.utc)
    dates = [f"{date:%Y-%m-%dT%H:%M:%SZ}" for date in (now - 2 * day, now - day, now + day)]
    between = lambda start, end, missed: atlan.workflow.find_schedule_query_between(
        ScheduleQueriesSearchRequest(start_date=start, end_date=end), missed=missed
    )
    [ran] = between(dates[1], dates[2], False)
    assert ran.metadata.name.startswith("asq-q1-1795000000-") and ran.status.phase
    assert between(dates[1], dates[2], True) is None and between(dates[0], dates[1], False) is None
    [missed] = between(dates[0], dates[1], True)
    assert missed.metadata.name == "asq-q1-1795000000"
    with applies("workflow_archived"):
        atlan.workflow.delete("asq-q1-1795000000")


def a_workflow_is_handed_over_changed_and_archived():
    with applies("owner_changed") as effects:
        assert atlan.workflow.update_owner(MINER, "joe").metadata.name == MINER
    assert (effects[0]["before"], effects[0]["after"]) == ("jane", "joe")
    with raises(NotFoundError, "stranger"):
        atlan.workflow.update_owner(MINER, "stranger")
    source = atlan.workflow.find_by_id(MINER).source
    source.metadata.annotations["note"] = "changed"
    with applies("workflow_updated"):
        changed = atlan.workflow.update(Workflow(metadata=source.metadata, spec=source.spec))
    assert changed.metadata.annotations["note"] == "changed"
    with applies("workflow_archived"):
        atlan.workflow.delete(MINER)
    assert atlan.workflow.find_by_id(MINER) is None
    with raises(InvalidRequestError, "ATLAN-PYTHON-400-047"):
        atlan.workflow.rerun(WorkflowPackage.SNOWFLAKE_MINER)


def tokens_are_found_by_each_of_their_names():
    for token in (atlan.token.get_by_name("ci"), atlan.token.get_by_guid(CI), atlan.token.get_by_id(CI_USER)):
        assert (token.guid, token.username, token.display_name) == (CI, CI_USER, "ci")
    assert atlan.token.get_by_name("none") is None
    page = atlan.token.get(limit=2)
    assert (page.total_record, [token.display_name for token in page.records]) == (3, ["sandbox", "ci"])


def a_connection_is_read_and_its_admins_are_replaced():
    [found] = atlan.asset.find_connections_by_name("prod", AtlanConnectorType.SNOWFLAKE)
    assert (found.qualified_name, found.guid) == (PROD, PROD_GUID)
    read = atlan.asset.get_by_guid(PROD_GUID, asset_type=Connection, ignore_relationships=True)
    assert sorted(read.admin_users) == sorted(["jane", CI_USER])
    change = Connection.updater(qualified_name=PROD, name="prod")
    change.admin_users = ["jane", "joe"]
    with applies("admins_replaced") as effects:
        answer = atlan.asset.save(change)
    assert [asset.guid for asset in answer.assets_updated(Connection)] == [PROD_GUID]
    assert sorted(effects[0]["after"]) == ["jane", "joe"]
    assert sorted(admins_found()) == ["jane", "joe"]
    with applies():
        assert not atlan.asset.save(change).assets_updated(Connection)


STEPS = [
    workflows_are_found_by_type_and_by_name,
    runs_are_found_by_name_phase_and_time,
    a_package_is_created_and_run,
    a_rerun_starts_one_run_and_an_idempotent_one_adopts_it,
    an_idempotent_rerun_of_an_idle_workflow_starts_it_and_a_stop_fails_it,
    a_monitor_sees_the_end_and_the_grant_has_happened,
    a_lost_answer_of_a_503_is_asked_for_again_under_the_same_request_id,
    a_member_is_sent_to_the_package_endpoint,
    a_schedule_is_added_shown_and_removed,
    schedule_queries_are_found_by_name_and_between_dates,
    a_workflow_is_handed_over_changed_and_archived,
    tokens_are_found_by_each_of_their_names,
    a_connection_is_read_and_its_admins_are_replaced,
]
