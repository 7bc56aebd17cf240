"""Who may do what: every route of the application by every kind of token, each cell asserted.

A route that is in none of the three tables below fails the test: whoever adds one decides who may use it.
"""

import json
import re
from collections.abc import Iterator, Mapping

import httpx
import pytest
from endpoints import Endpoints, bearer, claims_of_device, outlaws, running, served, signed
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket

SALE = b'{"transaction_id":"t-1"}'
NOBODYS = {"anon", "authenticated", "no role", "device revoked", "device unknown", "no subject"}
"""Genuine tokens of those who may not: 403. Any other outlaw shows no token that counts: 401."""

HEARTBEAT = "/rest/v1/rpc/heartbeat"
BY_TOKEN: dict[str, tuple[str, str, bytes, set[str]]] = {
    "/ingest-transaction": ("POST", "/ingest-transaction", SALE, {"device", "service"}),
    "/functions/v1/ingest-transaction": ("POST", "/functions/v1/ingest-transaction", SALE, {"device", "service"}),
    HEARTBEAT: ("POST", HEARTBEAT, b'{"nonce":"n"}', {"device", "other device"}),
    "/load-bronze-from-storage": ("POST", "/load-bronze-from-storage", b"{}", {"service"}),
    "/metrics": ("GET", "/metrics", b"", {"service"}),
}
"""Method, URL, body, and whose tokens open it."""

DEVICES = "select device_id, revoked_at, tokens_valid_from::text from scout_edge.devices order by 1"
STORAGE = "/storage/v1/object/{path}"
OF_ALL = {
    "/healthz": "GET",
    "/readyz": "GET",
    "/enrol": "POST",
    "/oauth/nonce": "POST",
    "/oauth/token": "POST",
    "/fleet/sign-in": "GET",
    "/fleet/static/{name}": "GET",
}
"""Open to all, or by what the body proves: a token changes nothing."""


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket) -> Iterator[Endpoints]:
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


def good(server: Endpoints) -> dict[str, str]:
    """Tokens that count, by whose they are."""
    return {"device": server.device("pi-05"), "other device": server.device("pi-06"), "service": server.service()}


def ask(
    server: Endpoints, method: str, url: str, token: str | None, body: bytes = b"", **headers: str
) -> httpx.Response:
    """Ask with a token, or without."""
    return server.client.request(method, url, content=body, headers=(bearer(token, **headers) if token else headers))


def statuses(server: Endpoints, route: str, tokens: Mapping[str, str | None]) -> dict[str, int]:
    """What a route answers to each of these tokens, in the name of pi-05."""
    method, url, body, _ = BY_TOKEN[route]
    return {
        name: ask(server, method, url, token, body, x_device_id="pi-05").status_code for name, token in tokens.items()
    }


def untouched(server: Endpoints) -> None:
    """Nothing was stored, reported or loaded by anybody."""
    assert server.rows("select from scout_bronze.transactions_raw") == []
    assert server.rows("select from scout_bronze.files") == []
    assert server.rows("select from scout_edge.heartbeats") == []
    assert list(server.bucket.list("")) == []


def test_every_route_is_decided(server: Endpoints) -> None:
    """By token, by session, or open to all."""
    found = set(served(server.application))
    pages = {path for path in found if path.startswith("/fleet")} - set(OF_ALL)

    assert len(pages) > 5
    assert found == {*BY_TOKEN, STORAGE, *OF_ALL, *pages}


@pytest.mark.parametrize("route", BY_TOKEN)
def test_an_outlaw_opens_no_route(server: Endpoints, route: str) -> None:
    """401 for what is no token that counts, 403 for whom may not; nothing of it is kept."""
    answers = statuses(server, route, outlaws(server))

    assert len(answers) > 15
    # PostgREST tells those who only need to sign in to do that.
    forbidden = NOBODYS - {"anon", "no role"} if route == HEARTBEAT else NOBODYS
    assert answers == {name: 403 if name in forbidden else 401 for name in answers}
    untouched(server)


@pytest.mark.parametrize("route", BY_TOKEN)
def test_a_good_token_opens_what_it_is_for(server: Endpoints, route: str) -> None:
    """And no other: a device posts for itself only, an operator is no device."""
    answers = statuses(server, route, good(server))

    assert answers == {name: 200 if name in BY_TOKEN[route][3] else 403 for name in answers}


def test_the_bucket_opens_to_a_device_for_its_own_folder_and_to_the_service(server: Endpoints) -> None:
    """Everybody else gets Supabase's refusal, whatever the verb, and nothing is stored."""
    path = "/storage/v1/object/scout-ingest/2026-01-20/pi-05/{}.jsonl"
    tokens = outlaws(server) | {"other device": server.device("pi-06")}
    refused = {}
    for name, token in tokens.items():
        for method in sorted(served(server.application)[STORAGE]):
            answer = ask(server, method, path.format("a"), token, SALE if method in ("POST", "PUT", "PATCH") else b"")
            body = {} if method == "HEAD" else json.loads(answer.content)
            refused[name, method] = (answer.status_code >= 400, "Key" in body)

    assert len(refused) > 100
    assert set(refused.values()) == {(True, False)}
    untouched(server)
    answers = {name: ask(server, "POST", path.format(name), token, SALE) for name, token in good(server).items()}
    assert {name for name, answer in answers.items() if answer.status_code == 200} == {"device", "service"}


def test_no_token_opens_a_page(server: Endpoints) -> None:
    """A good one neither: the pages ask for a session, which only the sign-in form begins."""
    pages = {path: methods for path, methods in served(server.application).items() if path.startswith("/fleet")}
    tokens = {**outlaws(server), **good(server)}
    before = server.rows(DEVICES)
    asked = {}
    for path, methods in pages.items():
        if path in OF_ALL:
            continue
        url = re.sub(r"{(device_id|rest)}", "pi-05", path).replace("{number}", "1").replace("{action}", "revoke")
        for method in methods - {"HEAD"}:
            for name, token in tokens.items():
                answer = ask(server, method, url, token)
                asked[path, method, name] = (answer.status_code, answer.headers.get("location", "")[:14])

    assert len(asked) > 200
    assert set(asked.values()) == {(303, "/fleet/sign-in")}
    assert server.rows(DEVICES) == before


@pytest.mark.parametrize("route", OF_ALL)
def test_where_no_token_is_asked_none_changes_the_answer(server: Endpoints, route: str) -> None:
    """Good, bad or none."""
    url = route.replace("{name}", "page.css")
    tokens = {"none": None, "garbage": "garbage", **good(server), "no exp": signed(claims_of_device(exp=None))}
    answers = {name: ask(server, OF_ALL[route], url, token, b"{}").status_code for name, token in tokens.items()}

    assert len(set(answers.values())) == 1, answers
