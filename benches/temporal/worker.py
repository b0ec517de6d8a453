"""The peer: an activity in Python that asks the tenant what our `publish_preflight` asks. It checks and keeps less than ours.

Arguments: the server's address and the task queue. ATLAN_BASE_URL and ATLAN_API_KEY name the tenant.
"""

import asyncio
import os
import sys

import httpx
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

CHECK = "/api/service/workflows/preflight/user-publish-check"
# As our worker is configured by default.
SLOTS, POLLERS = 32, 5


class Preflight:
    def __init__(self, tenant: httpx.AsyncClient):
        self.tenant = tenant

    @activity.defn(name="publish_preflight")
    async def run(self, question: dict) -> dict:
        answer = await self.tenant.post(CHECK, json=question)
        if answer.status_code != 200:
            raise ApplicationError(f"the tenant answered {answer.status_code}", type="tenant.refused", non_retryable=answer.status_code < 500)
        found = answer.json()
        return {"status": "passed" if found["passed"] else "failed", "message": found["message"], "facts": found}


async def main(address, task_queue):
    headers = {"authorization": f"Bearer {os.environ['ATLAN_API_KEY']}"}
    client = await Client.connect(address)
    async with httpx.AsyncClient(base_url=os.environ["ATLAN_BASE_URL"], headers=headers, timeout=30) as tenant:
        worker = Worker(
            client, task_queue=task_queue, activities=[Preflight(tenant).run],
            max_concurrent_activities=SLOTS, max_concurrent_activity_task_polls=POLLERS)
        print("the worker is ready", flush=True)
        await worker.run()


asyncio.run(main(*sys.argv[1:]))
