"""application-sdk's own client of the Automation Engine, unchanged, against a native tenant or an argo one that the engine serves."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

from application_sdk.testing.harness.automation_engine import AEClient
from application_sdk.testing.harness.automation_engine._errors import AtlanAEWorkflowAlreadyActiveError, AtlanApiHttpError
from common import BASE, applies, sandbox

APP = os.environ["WORKFLOW"]
TOKEN = "sandbox-api-token"


def asked(question, bearer=TOKEN):
    """One question over a client of its own."""

    async def ask():
        async with AEClient(BASE, bearer) as engine:
            return await question(engine)

    return asyncio.run(ask())


def found(since):
    return asked(lambda engine: engine.find_run_created_since(APP, since, timeout_seconds=1, interval_seconds=1))


def a_run_is_submitted_found_in_the_list_and_followed_to_its_end():
    # What ran before this second is too old even for the tolerance of the client.
    later = datetime.now(UTC) + timedelta(seconds=120)
    run = asked(lambda engine: engine.submit_published_version(APP, retries=0))
    assert asked(lambda engine: engine.probe_run_is_listed(APP, run)) is True
    lookup = found(later)
    assert (lookup.run_id, lookup.conclusive) == (run, True)
    status = asked(lambda engine: engine.get_native_status(run))
    assert (status.run_id, status.workflow_slug, [node.name for node in status.nodes]) == (run, APP, ["extract"])
    assert isinstance(asked(lambda engine: engine.get_node_outputs(run, "extract")), dict)
    assert all(node.started_at_ms is None or node.started_at_ms > 1_700_000_000_000 for node in status.nodes)
    started = [effect for effect in sandbox("ledger") if effect["kind"].endswith("run_submitted")]
    assert [effect["run"] for effect in started] == [run]


def a_second_active_run_is_refused_and_a_termination_is_harmless_twice():
    try:
        asked(lambda engine: engine.submit_published_version(APP, retries=0))
    except AtlanAEWorkflowAlreadyActiveError:
        pass
    else:
        raise AssertionError("two runs at once")
    run = found(datetime.now(UTC)).run_id
    assert asked(lambda engine: engine.terminate_run(run)) is True
    with applies():
        assert asked(lambda engine: engine.terminate_run(run)) is True
    assert asked(lambda engine: engine.terminate_run("none")) is False


def an_unknown_workflow_has_no_published_version():
    try:
        asked(lambda engine: engine.submit_published_version("none", retries=0))
    except AtlanApiHttpError as error:
        assert "no published version" in str(error), error
    else:
        raise AssertionError("submitted")


def a_caller_without_the_right_learns_nothing_and_an_empty_list_proves_nothing():
    run = found(datetime.now(UTC) - timedelta(days=1)).run_id
    assert asked(lambda engine: engine.probe_run_is_listed(APP, run), "sandbox-member") is None
    sandbox("automation", {"access": "empty"})
    assert asked(lambda engine: engine.probe_run_is_listed(APP, run)) is False
    sandbox("automation", {"access": "forbidden"})
    assert asked(lambda engine: engine.terminate_run(run)) is False
    sandbox("automation", {"access": "allowed"})
    assert asked(lambda engine: engine.probe_run_is_listed(APP, run)) is True


STEPS = [
    a_run_is_submitted_found_in_the_list_and_followed_to_its_end,
    a_second_active_run_is_refused_and_a_termination_is_harmless_twice,
    an_unknown_workflow_has_no_published_version,
    a_caller_without_the_right_learns_nothing_and_an_empty_list_proves_nothing,
]
