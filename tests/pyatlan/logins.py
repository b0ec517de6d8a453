"""pyatlan, unchanged, against either generation: OAuth clients with personas, API tokens, and becoming a user."""

import os

from common import BASE, applies, client, raises, sandbox
from httpx import HTTPStatusError
from httpx_retries import Retry
from pyatlan.client.atlan import AtlanClient
from pyatlan.errors import AuthenticationError, NotFoundError, PermissionError

JANE = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61"
DORA = "0d15ab1e-d000-4000-8000-000000000001"
STEWARDS = "default/xS2hdJ7TWUqhVcZHC3zoVN"

os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"] = "atlan-argo", "sandbox-argo-secret"
atlan = client()
made = {}


def logged_in(answer):
    return AtlanClient(base_url=BASE, oauth_client_id=answer.client_id, oauth_client_secret=answer.client_secret)


def statuses(part):
    return [request["status"] for request in sandbox("requests") if part in request["target"]]


def personas_are_found_by_name():
    assert [persona.qualified_name for persona in atlan.asset.find_personas_by_name("Data Stewards")] == [STEWARDS]
    assert len(atlan.asset.find_personas_by_name("Readers")) == 2
    with raises(NotFoundError, "ATLAN-PYTHON-404-014"):
        atlan.asset.find_personas_by_name("none")


def an_oauth_client_is_created_with_a_persona_and_logs_in_at_once():
    [persona] = atlan.asset.find_personas_by_name("Data Stewards")
    with applies("oauth_client_created") as effects:
        answer = atlan.oauth_client.create(
            name="nightly", role="Admin", description="d", persona_qualified_names=[persona.qualified_name]
        )
    assert (answer.client_id, answer.display_name) == (effects[0]["client"], "nightly") and answer.client_secret
    assert answer.client_secret not in str(sandbox("ledger")) + str(sandbox("requests"))
    record = atlan.oauth_client.get_by_id(answer.client_id)
    assert (record.role, record.persona_qualified_names) == ("$admin", [STEWARDS])
    made["oauth"], made["login"] = answer, logged_in(answer)
    assert made["login"].token.get_by_name("ci").display_name == "ci"
    with raises(NotFoundError, "ATLAN-PYTHON-404-030", "Admin"):
        atlan.oauth_client.create(name="x", role="$admin")


def an_expired_login_is_renewed_once_and_the_call_is_repeated():
    before = len(statuses("apikeys"))
    sandbox("credentials", {"kind": "expire_issued"})
    assert made["login"].token.get_by_name("ci").display_name == "ci"
    assert statuses("apikeys")[before:] == [401, 200]


def oauth_clients_are_listed_changed_and_purged():
    assert sorted(one.display_name for one in atlan.oauth_client.get(limit=1, sort="-createdAt")) == ["nightly", "sandbox"]
    client_id = made["oauth"].client_id
    with applies("oauth_client_updated"):
        changed = atlan.oauth_client.update(client_id, display_name="weekly")
    assert (changed.display_name, atlan.oauth_client.get_by_id(client_id).description) == ("weekly", "d")
    with applies("oauth_client_purged"):
        atlan.oauth_client.purge(client_id)
    with raises(NotFoundError):
        atlan.oauth_client.get_by_id(client_id)
    with raises(HTTPStatusError, "401"):
        made["login"].token.get_by_name("ci")


def an_api_token_is_created_used_changed_and_purged():
    with applies("api_token_created") as effects:
        token = atlan.token.create("made here", description="d", personas={STEWARDS}, validity_seconds=3600)
    value = token.attributes.access_token
    assert (token.guid, token.display_name) == (effects[0]["token"], "made here") and value
    assert value not in str(sandbox("ledger")) + str(sandbox("requests"))
    found = atlan.token.get_by_name("made here")
    assert (found.guid, found.username, found.attributes.access_token) == (token.guid, token.username, None)
    assert [one.persona_qualified_name for one in found.attributes.persona_qualified_name] == [STEWARDS]
    assert client(value).token.get_by_guid(token.guid).guid == token.guid
    with applies("api_token_updated"):
        assert atlan.token.update(token.guid, "renamed").display_name == "renamed"
    with applies("api_token_purged"):
        atlan.token.purge(token.guid)
    assert atlan.token.get_by_guid(token.guid) is None
    with raises(AuthenticationError):
        client(value).token.get_by_name("ci")


def a_user_is_impersonated_unless_disabled():
    bare = AtlanClient(base_url=BASE, api_key="", retry=Retry(total=0))
    assert client(bare.impersonate.user(JANE)).token.get_by_name("ci").display_name == "ci"
    assert bare.impersonate.escalate()
    with raises(PermissionError):
        bare.impersonate.user(DORA)


def a_client_is_made_of_the_guid_of_a_token():
    guid = atlan.token.get_by_name("ci").guid
    assert AtlanClient.from_token_guid(guid, base_url=BASE).token.get_by_guid(guid).guid == guid


STEPS = [
    personas_are_found_by_name,
    an_oauth_client_is_created_with_a_persona_and_logs_in_at_once,
    an_expired_login_is_renewed_once_and_the_call_is_repeated,
    oauth_clients_are_listed_changed_and_purged,
    an_api_token_is_created_used_changed_and_purged,
    a_user_is_impersonated_unless_disabled,
    a_client_is_made_of_the_guid_of_a_token,
]
