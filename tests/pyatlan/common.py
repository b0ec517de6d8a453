"""What the scripts share: the vendor's client as it comes, and the sandbox's own routes to see what was really applied."""

import faulthandler
import json
import os
import urllib.request
import warnings
from contextlib import contextmanager

from pyatlan.client.atlan import AtlanClient

BASE = os.environ["ATLAN_BASE_URL"]
# Whatever hangs says where.
faulthandler.dump_traceback_later(300, exit=True)
# What is deprecated there is what is judged here.
warnings.simplefilter("ignore", DeprecationWarning)


def client(bearer="sandbox-api-token"):
    return AtlanClient(base_url=BASE, api_key=bearer)


def sandbox(path, body=None):
    """Asks one of the sandbox's own routes."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{BASE}/sandbox/{path}", data=data), timeout=10) as answer:
        return json.load(answer)


@contextmanager
def applies(*kinds):
    """What happens inside has exactly these effects, in this order; they are what the block gets. What a run of before does at its end,
    whenever that is, is not among them."""
    before = len(sandbox("ledger"))
    effects = []
    yield effects
    effects.extend(effect for effect in sandbox("ledger")[before:] if effect["kind"] != "admin_granted_by_run")
    assert tuple(effect["kind"] for effect in effects) == kinds, (kinds, effects)


@contextmanager
def raises(kind, *parts):
    """What happens inside is refused by the client with this error, whose text holds these parts; it has no effect."""
    with applies():
        try:
            yield
        except kind as error:
            text = f"{getattr(error, 'error_code', '')} {error}"
            assert all(part in text for part in parts), (parts, text)
        else:
            raise AssertionError(f"no {kind.__name__}")
