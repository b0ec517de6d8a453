"""pyatlan 10, unchanged, against a tenant of the native generation: its workflows are gone, and the client says so."""

from common import applies, client, raises
from pyatlan.errors import InvalidRequestError, NotFoundError
from pyatlan.model.enums import WorkflowPackage
from pyatlan.model.packages import APITokenConnectionAdmin

atlan = client()


def no_workflow_is_found():
    assert atlan.workflow.find_by_type(WorkflowPackage.SNOWFLAKE) == []
    with raises(InvalidRequestError, "ATLAN-PYTHON-400-047"):
        atlan.workflow.rerun(WorkflowPackage.SNOWFLAKE)


def a_package_cannot_be_run():
    package = APITokenConnectionAdmin().config(connection_qualified_name="default/snowflake/1", api_token_guid="g")
    with raises(NotFoundError, 'clusterworkflowtemplates.argoproj.io "csa-api-token-connection-admin" not found'):
        atlan.workflow.run(package.to_workflow())


def its_client_of_apps_works():
    with applies("app_run_submitted") as effects:
        answer = atlan.app.submit("bq-prod-3f9ab2c1")
    assert answer.run_id == effects[0]["run"]


STEPS = [
    no_workflow_is_found,
    a_package_cannot_be_run,
    its_client_of_apps_works,
]
