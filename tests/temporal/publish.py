"""A workflow that asks Iolaus before it publishes. README quotes what stands between the marks; it needs no package but `temporalio`."""

# quoted from here
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError


@workflow.defn
class Publish:
    @workflow.run
    async def run(self, question: dict, task_queue: str = "iolaus", start_within: float = 10) -> dict:
        try:
            verdict = await workflow.execute_activity(
                "publish_preflight", question, task_queue=task_queue, retry_policy=RetryPolicy(maximum_attempts=3),
                schedule_to_start_timeout=timedelta(seconds=start_within), schedule_to_close_timeout=timedelta(seconds=60))
        except ActivityError as unresolved:  # neither yes nor no: nobody could say, or no worker took it in time
            why = unresolved.cause
            if isinstance(why, ApplicationError) and why.details:
                workflow.logger.error("%s: %s", why.type, why.details[0]["suggested_action"] or why.message)
            raise
        if verdict["status"] != "passed":  # the tenant's own no
            return {"published": False, "why": verdict["message"], "verdict": verdict}
        return {"published": True, "verdict": verdict}  # publish before this line
# to here
