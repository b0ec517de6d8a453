"""pyatlan, unchanged, against either generation: who calls, users, groups, roles, credentials of sources, and new connections."""

from common import applies, client, raises, sandbox
from pyatlan.errors import NotFoundError, PermissionError
from pyatlan.model.assets import Connection
from pyatlan.model.credential import Credential
from pyatlan.model.enums import AtlanConnectorType

JANE = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61"
ME = "service-account-apikey-11111111-2222-3333-4444-555555555555"
STEWARDS = "90000000-0000-4000-8000-0000000000a1"

atlan = client()
made = {}


def the_role_of_the_caller_is_asked_once():
    asked = sum("whoami" in request["target"] for request in sandbox("requests"))
    assert atlan.role_cache.is_api_token_user() and atlan.role_cache.is_api_token_user()
    assert sum("whoami" in request["target"] for request in sandbox("requests")) == asked + 1
    assert client("sandbox-admin").role_cache.is_api_token_user(), "an admin uses the same endpoints"
    assert not client("sandbox-member").role_cache.is_api_token_user()


def users_are_listed_page_by_page_and_found():
    assert [user.username for user in atlan.user.get_all(limit=3)] == ["dora", "jane", "joe", "noah"]
    jane = atlan.user.get_by_username("jane")
    assert (jane.id, jane.enabled, jane.workspace_role) == (JANE, True, "$admin")
    assert not atlan.user.get_by_username("dora").enabled
    assert atlan.user.get_by_username("none") is None
    assert [user.username for user in atlan.user.get_by_usernames(["joe", "noah", "none"])] == ["joe", "noah"]
    assert [user.username for user in atlan.user.get_by_email("AH@exam")] == ["noah"]
    assert [user.username for user in atlan.user.get_by_emails(["joe@example.com"])] == ["joe"]
    assert atlan.user_cache.get_id_for_name("jane") == JANE


def the_current_user_is_told():
    assert atlan.user.get_current().username == ME
    assert client("sandbox-admin").user.get_current().id == JANE


def groups_are_listed_and_their_members():
    assert [group.name for group in atlan.group.get_all()] == ["data_stewards", "engineers"]
    [stewards] = atlan.group.get_by_name("steward")
    assert (stewards.id, stewards.attributes.alias, stewards.user_count) == (STEWARDS, ["Data Stewards"], 2)
    assert [user.username for user in atlan.group.get_members(STEWARDS)] == ["jane", "noah"]
    assert [group.name for group in atlan.user.get_groups(JANE)] == ["data_stewards"]


def roles_are_listed_and_cached():
    roles = atlan.role.get_all()
    assert roles.total_record == len(roles.records) == 4
    assert {role.name for role in roles.records} == {"$admin", "$member", "$guest", "$admin_connections"}
    assert atlan.role_cache.get_name_for_id(atlan.role_cache.get_id_for_name("$admin")) == "$admin"


def oauth_clients_and_tokens_are_sorted_as_asked():
    with applies("oauth_client_created"):
        answer = atlan.oauth_client.create(name="aardvark", role="Member")
    assert [one.display_name for one in atlan.oauth_client.get(sort="displayName")] == ["aardvark", "sandbox"]
    assert [one.display_name for one in atlan.oauth_client.get(limit=1, sort="-displayName")] == ["sandbox", "aardvark"]
    atlan.oauth_client.purge(answer.client_id)
    names = [token.display_name for token in atlan.token.get(limit=20, sort="-displayName").records]
    assert names == sorted(names, reverse=True) and len(names) == 3


def a_credential_is_tested_stored_changed_and_purged():
    credential = Credential(name="made here", host="db.example", port=1, auth_type="basic", connector="postgres")
    credential.username, credential.password = "u", "hush-hush"
    credential.connector_config_name = "atlan-connectors-postgres"
    assert atlan.credentials.test(credential).is_successful
    with applies("credential_created") as effects:
        answer = atlan.credentials.creator(credential)
    assert answer.id == effects[0]["credential"]
    [listed] = atlan.credentials.get_all(filter={"name": "made here"}).records
    listed = listed if isinstance(listed, dict) else listed.dict()
    assert listed["id"] == answer.id
    [of_workflow] = atlan.credentials.get_all(workflow_name="atlan-snowflake-1684500500").records
    assert "default-snowflake-1684500500-0" in str(of_workflow)
    read = atlan.credentials.get(answer.id)
    assert (read.host, read.port, read.username) == ("db.example", 1, None)
    change = read.to_credential()
    change.host, change.password = "other.example", "hush-hush"
    with applies("credential_updated"):
        assert atlan.credentials.test_and_update(change).host == "other.example"
    with applies("credential_purged"):
        atlan.credentials.purge_by_guid(answer.id)
    with raises(NotFoundError):
        atlan.credentials.get(answer.id)
    assert "hush-hush" not in str(sandbox("requests")) + str(sandbox("ledger"))


def a_connection_is_created_by_name_and_found():
    role = atlan.role_cache.get_id_for_name("$admin")
    fresh = Connection.creator(
        client=atlan,
        name="fresh",
        connector_type=AtlanConnectorType.SNOWFLAKE,
        admin_users=["jane"],
        admin_groups=["data_stewards"],
        admin_roles=[role],
    )
    with applies("connection_created") as effects:
        [created] = atlan.asset.save(fresh).assets_created(Connection)
    assert sorted(effects[0]["admins"]) == sorted(["jane", ME]), "the creator is one of them"
    [found] = atlan.asset.find_connections_by_name("fresh", AtlanConnectorType.SNOWFLAKE)
    assert (found.guid, found.qualified_name) == (created.guid, effects[0]["connection"])
    read = atlan.asset.get_by_guid(created.guid, asset_type=Connection, ignore_relationships=True)
    assert sorted(read.admin_users) == sorted(["jane", ME]) and read.admin_groups == {"data_stewards"}
    assert read.admin_roles == {role}
    for wrong in ({"admin_users": ["stranger"]}, {"admin_groups": ["strangers"]}):
        try:
            Connection.creator(client=atlan, name="no", connector_type=AtlanConnectorType.SNOWFLAKE, **wrong)
        except ValueError as error:
            assert "was not found" in str(error)
        else:
            raise AssertionError(f"{wrong} exists")


STEPS = [
    the_role_of_the_caller_is_asked_once,
    users_are_listed_page_by_page_and_found,
    the_current_user_is_told,
    groups_are_listed_and_their_members,
    roles_are_listed_and_cached,
    oauth_clients_and_tokens_are_sorted_as_asked,
    a_credential_is_tested_stored_changed_and_purged,
    a_connection_is_created_by_name_and_found,
]
