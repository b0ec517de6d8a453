"""A workflow that passes on whatever arguments it is given."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy


@workflow.defn
class Call:
    @workflow.run
    async def run(self, arguments: list, task_queue: str, start_within: float) -> dict:
        return await workflow.execute_activity(
            "publish_preflight", args=arguments, task_queue=task_queue, retry_policy=RetryPolicy(maximum_attempts=3),
            schedule_to_start_timeout=timedelta(seconds=start_within), schedule_to_close_timeout=timedelta(seconds=60))
