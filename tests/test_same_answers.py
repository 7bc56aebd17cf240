"""A client may be pointed at the cloud or at the device: both read the same request as the same sales."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import OBJECTS, OBJECTS_ON_A_LINE
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from agent.sources.local_http.messages import Refused
from agent.sources.local_http.post import form_of
from agent.sources.local_http.post import read_post as read_on_device
from server.config import LIMITS
from server.ingest import _post
from server.ingest import read_post as read_on_server
from wire.framing import RefusedBody

NOW = datetime(2027, 3, 1, tzinfo=UTC)

Reading = tuple[object, ...]
"""Payloads, rejected lines and hash; or status, line and reason of a refusal."""


def on_server(headers: dict[str, str], body: bytes) -> Reading:
    """What the ingest endpoint makes of a request."""
    try:
        delivery = read_on_server(_post(Headers(headers), "pi-05", body, LIMITS), LIMITS, NOW)
    except RefusedBody as refused:
        return 400, refused.line, refused.reason
    except HTTPException as refused:
        return refused.status_code, None, None
    payloads = [line.payload for line in delivery.lines]
    return payloads, [(refused.line, refused.reason) for refused in delivery.refused], delivery.sha256


def on_device(headers: dict[str, str], body: bytes) -> Reading:
    """What the local HTTP source makes of it."""
    try:
        post = read_on_device(form_of(headers), body, LIMITS.expanded_bytes_max)
    except Refused as refused:
        fields = json.loads(refused.answer.body)
        return refused.answer.status, fields.get("line"), fields.get("reason")
    return list(post.payloads), [(line.line, line.reason) for line in post.rejected], post.sha256


_JUNK = st.binary(max_size=40) | st.sampled_from(
    [b"", b"[]", b"{}", b"null", b'{"a":NaN}', b'{"a":', b"\xef\xbb\xbf{}"]
)
_LINES = st.lists(OBJECTS_ON_A_LINE | _JUNK, max_size=4).map(b"\n".join)
_ARRAYS = st.lists(OBJECTS | st.just(b"7"), max_size=3).map(lambda texts: b"[" + b",".join(texts) + b"]")
_ENCODINGS = st.sampled_from(
    [(None, bytes), ("identity", bytes), ("gzip", gzip.compress), (None, gzip.compress), ("gzip", bytes), ("br", bytes)]
)
_TYPES = st.sampled_from(
    ["application/json", "application/jsonl", "application/x-ndjson; charset=utf-8", "text/plain", ""]
)
_KEYS = st.none() | st.text(max_size=5) | st.sampled_from(["till-7", "", "x" * 255, "x" * 256])


@settings(deadline=None)
@given(_LINES | _ARRAYS | OBJECTS | _JUNK, _ENCODINGS, _TYPES, _KEYS)
def test_server_and_device_read_a_request_alike(
    body: bytes, encoding: tuple[str | None, Callable[[bytes], bytes]], content_type: str, key: str | None
) -> None:
    """The same payloads, the same lines rejected for the same reasons, the same hash, the same refusals."""
    name, encode = encoding
    given_headers = {"content-type": content_type, "content-encoding": name, "idempotency-key": key}
    headers = {
        header: value.encode("latin-1", "replace").decode("latin-1")
        for header, value in given_headers.items()
        if value is not None
    }

    assert on_device(headers, encode(body)) == on_server(headers, encode(body))
