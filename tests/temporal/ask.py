"""Runs a workflow on a server and prints a line of JSON about it.

The argument is a JSON object: `address`, the `task_queue` of the worker of Iolaus, the `workflow`, its first argument as `question`, and
`start_within` in seconds.
"""

import asyncio
import json
import logging
import os
import sys
import uuid

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError
from temporalio.worker import Worker

from call import Call
from publish import Publish


class Said(logging.Handler):
    """Keeps what the workflow logs."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def told(error):
    """What a caller is told of the failure of the activity."""
    activity = error.cause
    if not isinstance(activity, ActivityError):
        return {"kind": type(activity).__name__, "message": str(activity)}
    why = activity.cause
    of = {"kind": type(why).__name__, "message": str(why), "retry_state": activity.retry_state and activity.retry_state.name}
    if isinstance(why, ApplicationError):
        of |= {"type": why.type, "text": why.message, "non_retryable": why.non_retryable, "details": list(why.details)}
    if isinstance(why, TimeoutError):
        of |= {"type": why.type and why.type.name}
    return of


async def ask(client, tracer, wanted):
    said = Said()
    logging.getLogger("temporalio.workflow").addHandler(said)
    answer = {}
    with tracer.start_as_current_span("a run of a publisher") as span:
        answer["trace_id"] = format(span.get_span_context().trace_id, "032x")
        handle = await client.start_workflow(
            wanted["workflow"], args=[wanted["question"], wanted["task_queue"], wanted["start_within"]],
            id=f"publish-{uuid.uuid4()}", task_queue=wanted["task_queue"] + "-publishers")
        try:
            answer["result"] = await handle.result()
        except WorkflowFailureError as error:
            answer["failure"] = told(error)
    described = await handle.describe()
    answer["workflow"] = handle.id
    answer["status"] = described.status.name
    answer["took"] = (described.close_time - described.start_time).total_seconds()
    answer["said"] = said.lines
    return answer


async def main():
    wanted = json.loads(sys.argv[1])
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("publisher")
    client = await Client.connect(wanted["address"], interceptors=[TracingInterceptor(tracer)])
    async with Worker(client, task_queue=wanted["task_queue"] + "-publishers", workflows=[Publish, Call]):
        answer = await ask(client, tracer, wanted)
    answer["spans"] = [span.name for span in exporter.get_finished_spans()]
    print(json.dumps(answer), flush=True)


asyncio.run(main())
# The SDK's own threads may abort an interpreter that takes itself down.
os._exit(0)
