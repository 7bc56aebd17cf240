"""One try to deliver: every answer a server may give, and what the agent makes of it."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import respx
from agent_kit import a_token, sale

from agent.errors import BatchRefused, CredentialsRefused, DeliveryFault, OperatorNeeded, Wait
from agent.upload import RETRY_AFTER_MAX_S, Connection, Parcel, by_bucket, by_endpoint, fault_of
from wire.batch import content_hash

KEY = "2027-03-01/pi-05/00000000000000aa-000000000001-000000000002-00000000000000bb.jsonl.gz"
BASE = "https://sales.example.com"
BUCKET_URL = f"{BASE}/storage/v1/object/scout-ingest"
INGEST_URL = f"{BASE}/ingest-transaction"
JSONL = sale(1) + b"\n" + sale(2) + b"\n"
PARCEL = Parcel(KEY, JSONL, content_hash(JSONL), 2)
TOKEN = a_token()
PORTAL = b"<html><title>Free WiFi</title>Please accept our terms</html>"

PLAIN_ANSWERS = [
    # from gateways, proxies and portals: no JSON, or not the storage server's
    (204, b"", OperatorNeeded),
    (301, b"", OperatorNeeded),
    (302, PORTAL, OperatorNeeded),
    (304, b"{}", OperatorNeeded),
    (401, b'{"message":"No API key found in request"}', CredentialsRefused),
    (401, PORTAL, CredentialsRefused),
    (403, b'{"code":"42501","message":"device is revoked"}', CredentialsRefused),
    (403, PORTAL, OperatorNeeded),
    (407, PORTAL, OperatorNeeded),
    (511, PORTAL, OperatorNeeded),
    (423, b"", Wait),
    (544, b"", Wait),
    (546, b'{"code":"WORKER_LIMIT"}', Wait),
    (400, PORTAL, OperatorNeeded),
    (404, PORTAL, OperatorNeeded),
    (405, b"{}", OperatorNeeded),
    (408, b"", Wait),
    (409, PORTAL, OperatorNeeded),
    (413, PORTAL, BatchRefused),
    (422, b'{"message":"the same key with another body"}', BatchRefused),
    (425, b"", Wait),
    (429, PORTAL, Wait),
    (500, PORTAL, Wait),
    (502, PORTAL, Wait),
    (503, b"[1]", Wait),
    (504, b"", Wait),
]


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Give a connection whose answers respx gives."""
    with httpx.Client() as client:
        yield Connection(client, BUCKET_URL, INGEST_URL, f"{BASE}/heartbeat", "key-1", 6, token=lambda: TOKEN)


def acknowledgement(**changed: object) -> bytes:
    """Write the endpoint's answer to the parcel."""
    fields: dict[str, Any] = {"accepted": 2, "duplicates": 0, "rejected": [], "sha256": PARCEL.sha256}
    return json.dumps(fields | changed).encode()


@respx.mock
def test_the_bucket_gets_the_batch_under_its_name(connection: Connection) -> None:
    """As Supabase's storage wants it: exact type, length given, nothing overwritten."""
    answer = {"Key": f"scout-ingest/{KEY}", "Id": "x"}
    route = respx.post(f"{BUCKET_URL}/{KEY}").respond(200, json=answer)
    by_bucket(connection, PARCEL)
    request = route.calls.last.request

    assert gzip.decompress(request.content) == JSONL
    assert request.headers["Content-Type"] == "application/gzip"
    assert int(request.headers["Content-Length"]) == len(request.content)
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["apikey"] == "key-1"
    assert "x-upsert" not in request.headers
    assert "Content-Encoding" not in request.headers


@respx.mock
def test_a_name_that_exists_already_is_success(connection: Connection) -> None:
    """The name holds the content's hash, so these bytes are there."""
    respx.post(f"{BUCKET_URL}/{KEY}").respond(
        400, json={"statusCode": "409", "code": "KeyAlreadyExists", "message": "The resource already exists"}
    )
    by_bucket(connection, PARCEL)


@respx.mock
def test_the_endpoint_gets_the_same_batch_under_the_same_name(connection: Connection) -> None:
    """Its name is the Idempotency-Key."""
    route = respx.post(INGEST_URL).respond(200, content=acknowledgement(accepted=0, duplicates=2))
    answer = by_endpoint(connection, PARCEL)
    request = route.calls.last.request

    assert answer.duplicates == 2
    assert gzip.decompress(request.content) == JSONL
    assert request.headers["Idempotency-Key"] == KEY
    assert request.headers["Content-Type"] == "application/jsonl"
    assert request.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(("status", "body", "expected"), PLAIN_ANSWERS)
@pytest.mark.parametrize("send", [by_bucket, by_endpoint])
@respx.mock
def test_each_answer_of_a_gateway_is_sorted_by_what_to_do(
    connection: Connection,
    send: Callable[[Connection, Parcel], object],
    status: int,
    body: bytes,
    expected: type[DeliveryFault],
) -> None:
    """The same on both paths."""
    respx.post(url__startswith=BASE).respond(status, content=body)
    with pytest.raises(DeliveryFault) as raised:
        send(connection, PARCEL)

    assert type(raised.value) is expected


@pytest.mark.parametrize(
    "body",
    [
        PORTAL,
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"Key":null}',
        b'{"Key":"scout-ingest/another.jsonl.gz","Id":"x"}',
        f'{{"Key":"scout-ingest/{KEY}.x","Id":"x"}}'.encode(),
        f'{{"Key":"scout-ingest/{KEY}"'.encode(),
        b'{"success":true}',
        b'{"statusCode":"409","code":"KeyAlreadyExists"}',
        acknowledgement(),
    ],
)
@respx.mock
def test_a_200_that_does_not_name_this_object_acknowledges_nothing(connection: Connection, body: bytes) -> None:
    """A captive portal answers 200 to everything."""
    respx.post(f"{BUCKET_URL}/{KEY}").respond(200, content=body)
    with pytest.raises(OperatorNeeded, match=r"sales\.example\.com.* answered 200"):
        by_bucket(connection, PARCEL)


@pytest.mark.parametrize(
    "body",
    [
        PORTAL,
        b"",
        b"{}",
        acknowledgement()[:-1],
        acknowledgement(accepted=1),
        acknowledgement(accepted=3),
        acknowledgement(accepted=3, duplicates=-1),
        acknowledgement(rejected=[{"line": 1, "reason": "x"}]),
        acknowledgement(sha256="00" * 32),
        acknowledgement(sha256=PARCEL.sha256[:16]),
        acknowledgement(accepted="2"),
        f'{{"Key":"scout-ingest/{KEY}","Id":"x"}}'.encode(),
    ],
)
@pytest.mark.parametrize("status", [200, 201])
@respx.mock
def test_an_answer_that_does_not_cover_this_batch_acknowledges_nothing(
    connection: Connection, status: int, body: bytes
) -> None:
    """Shape, counts and checksum must all be this batch's."""
    respx.post(INGEST_URL).respond(status, content=body)
    with pytest.raises(OperatorNeeded, match=r"sales\.example\.com"):
        by_endpoint(connection, PARCEL)


@respx.mock
def test_rejected_lines_count_as_received(connection: Connection) -> None:
    """The server holds them in quarantine; sending them again would change nothing."""
    respx.post(INGEST_URL).respond(200, content=acknowledgement(accepted=1, rejected=[{"line": 2, "reason": "x"}]))
    assert by_endpoint(connection, PARCEL).lines == 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "999999999"}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "9" * 5000}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "Mon, 01 Mar 2027 02:31:00 GMT", "Date": "Mon, 01 Mar 2027 02:30:00 GMT"}, 60.0),
        ({"Retry-After": "Mon, 01 Mar 2027 02:29:00 GMT", "Date": "Mon, 01 Mar 2027 02:30:00 GMT"}, 0.0),
        ({"Retry-After": "Mon, 01 Mar 2027 02:31:00 GMT", "Date": "yesterday"}, None),
        ({"Retry-After": "Mon, 01 Mar 2027 02:31:00 GMT"}, None),
        ({"Retry-After": "Mon, 01 Mar 2027 02:31:00 -0000", "Date": "Mon, 01 Mar 2027 02:30:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_both_forms_by_the_servers_own_date(
    headers: dict[str, str], expected: float | None
) -> None:
    """This device's clock may be wrong by decades; nonsense counts as not said."""
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    fault = fault_of(httpx.Response(503, headers=encoded), INGEST_URL)

    assert isinstance(fault, Wait)
    assert fault.retry_after_s == expected


@respx.mock
def test_no_request_leaves_without_a_token(connection: Connection) -> None:
    """It could only be refused."""

    def none() -> str:
        raise CredentialsRefused

    bare = Connection(connection.client, BUCKET_URL, INGEST_URL, "", "", 6, token=none)
    with pytest.raises(CredentialsRefused):
        by_endpoint(bare, PARCEL)
    assert not respx.calls


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        (200, {}, PORTAL, "a web page"),
        (403, {}, PORTAL, "a web page"),
        (511, {}, b"", "a web page"),
        (302, {"Location": "http://portal.example/"}, b"", "points elsewhere"),
        (404, {}, b"{}", "answered 404"),
    ],
)
@pytest.mark.parametrize("send", [by_bucket, by_endpoint])
@respx.mock
def test_a_stranger_in_the_servers_place_is_named(
    connection: Connection,
    send: Callable[[Connection, Parcel], object],
    *,
    status: int,
    headers: dict[str, str],
    body: bytes,
    says: str,
) -> None:
    """A technician reads what stands between, and nothing follows where it points."""
    route = respx.post(url__startswith=BASE).respond(status, headers=headers, content=body)
    with pytest.raises(OperatorNeeded, match=says):
        send(connection, PARCEL)

    assert route.call_count == 1
