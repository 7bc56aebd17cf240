"""The ingest endpoint: `POST /ingest-transaction`, also under `/functions/v1/`, where Supabase serves it.

One JSON object, an array or JSONL; plain, gzip or zstd. Each line is accepted, a duplicate, or rejected and
held in quarantine: the three add up to the lines sent.

May be relied on: 200 means all of it is committed, and nothing else does. What makes a second post the same:

    Idempotency-Key is an agent's object name   settles that batch; the body must be exactly it, else 422
    any other Idempotency-Key                   scoped to the device; with another body 422
    no key                                      a new post each time, but for lines with a transaction_id

Whoever posts has a token; only a server started with `--open` also takes posts without one (server/tokenless.py).
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import structlog
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.body import read_body
from server.bronze import Outcome
from server.committer import Committer, Overloaded, Stopping
from server.config import Limits
from server.expanding import Unreadable, expand
from server.line_count import has_more_lines
from server.rate import TOO_FAST, RateLimit
from server.reading import Delivery, read_batch, read_foreign
from server.tokenless import device_without_token
from server.tokens import EDGE_UPLOADER, SERVICE_ROLE, Identity, bearer, device_known
from wire.batch import BatchName, NotABatchName
from wire.framing import RefusedBody
from wire.receipt import IngestAnswer
from wire.record import format_instant

PATHS = ("/ingest-transaction", "/functions/v1/ingest-transaction")
ENDPOINT = "endpoint"
"""The ledger's bucket of what was posted here: agents' batches by name, other posts by an id of their own."""
IDEMPOTENCY = "idempotency"
"""The ledger's bucket of posts under a key of the sender's, `DEVICE/KEY`."""
LINES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Post:
    """What a request asks: its body, as sent, and how to read it."""

    device_id: str
    body: bytes
    encoding: str
    lines_only: bool
    idempotency_key: str | None


def ingest_routes(
    authenticate: Callable[[str], Identity],
    pool: ConnectionPool,
    committer: Committer,
    limits: Limits,
    *,
    rate: RateLimit,
    now: Callable[[], datetime],
    is_open: bool,
) -> list[Route]:
    """Return the routes. `authenticate` verifies a token; `committer` stores what is posted.

    `is_open`: programs on this machine may post without a token. One that is sent is verified all the same.
    """

    def device_of(headers: Headers) -> str:
        authorization = headers.get("authorization")
        if authorization is None and is_open:
            return device_without_token(headers, pool)
        return _device_of(authenticate(bearer(authorization)), headers.get("x-device-id"), pool)

    verifying = asyncio.Semaphore(limits.verify_at_once_max)
    reading = asyncio.Semaphore(limits.reads_at_once_max)

    async def respond(request: Request) -> Response:
        async with verifying:
            device_id = await run_in_threadpool(device_of, request.headers)
        wait_s = rate.wait_s(device_id)
        if wait_s:
            raise HTTPException(429, TOO_FAST, {"Retry-After": str(wait_s)})
        body = await read_body(request, limits.body_bytes_max, limits.body_stall_s)
        post = _post(request.headers, device_id, body, limits)
        try:
            async with reading:
                delivery = await run_in_threadpool(read_post, post, limits, now())
        except RefusedBody as refused:
            detail = {
                "error": "unreadable",
                "message": str(refused),
                "line": refused.line,
                "reason": refused.reason,
            }
            return JSONResponse(detail, 400)
        outcome = await _stored(committer, delivery, limits)
        if outcome.conflict:
            raise HTTPException(
                422, "this Idempotency-Key came before with another body: use a new key for a new body."
            )
        answer = IngestAnswer(outcome.accepted, outcome.duplicates, outcome.rejected, delivery.sha256)
        return Response(answer.to_json(), media_type="application/json")

    return [Route(path, respond, methods=["POST"]) for path in PATHS]


def read_post(post: _Post, limits: Limits, now: datetime) -> Delivery:
    """Read a body into what bronze stores. For sales that no agent took, this endpoint is the intake, at `now`.

    Raises RefusedBody when it is no transaction at all, HTTPException 400 when it can't be expanded, 413 when it
    holds too much, and 422 when it is not the batch that its key names.
    """
    bytes_max = limits.expanded_bytes_max
    if not post.lines_only:
        bytes_max = min(bytes_max, limits.document_bytes_max)
    try:
        plain = expand(post.body, _encoding(post), bytes_max)
    except Unreadable as unreadable:
        as_lines = "" if post.lines_only else f" (as application/jsonl, {limits.expanded_bytes_max})"
        raise HTTPException(400, f"the body can't be expanded: {unreadable}{as_lines}") from None
    if has_more_lines(plain, limits.lines_max, lines_only=post.lines_only):
        raise HTTPException(413, f"the body has more than {limits.lines_max} lines: send it in parts.")
    key = post.idempotency_key
    if key is None:
        name = f"post/{post.device_id}/{uuid.uuid4()}"
        return _foreign(post, plain, ENDPOINT, name, now)
    try:
        batch = BatchName.parse(key)
    except NotABatchName:
        return _foreign(post, plain, IDEMPOTENCY, f"{post.device_id}/{key}", now)
    if batch.device_id != post.device_id:
        raise HTTPException(
            422, f"this Idempotency-Key names a batch of {batch.device_id!r}, the token {post.device_id!r}."
        )
    try:
        return read_batch(plain, batch, bucket=ENDPOINT, key=key, version="")
    except Unreadable as unreadable:
        raise HTTPException(422, f"the body is not the batch that its Idempotency-Key names: {unreadable}") from None


async def _stored(committer: Committer, delivery: Delivery, limits: Limits) -> Outcome:
    try:
        return await asyncio.wrap_future(committer.submit(delivery))
    except (Overloaded, Stopping) as busy:
        raise HTTPException(503, str(busy), {"Retry-After": str(limits.retry_after_s)}) from None


def _device_of(identity: Identity, named: str | None, pool: ConnectionPool) -> str:
    """Return the device for which this token posts. Raises HTTPException 400 or 403."""
    if identity.role == EDGE_UPLOADER:
        if named not in (None, identity.subject):
            raise HTTPException(
                403,
                f"this token is {identity.subject!r}'s, but x-device-id names {named!r}: leave the header out, or "
                f"get a token with 'scout-server tokens issue --name {named}'.",
            )
        return identity.subject
    if identity.role != SERVICE_ROLE:
        raise HTTPException(403, "only a device's token or a service token may post here.")
    if named is None:
        raise HTTPException(400, "with a service token, name the device in x-device-id.")
    with pool.connection() as connection:
        if not device_known(connection, named):
            raise HTTPException(
                403,
                f"x-device-id names {named!r}, which is not known here or revoked: "
                "'scout-server tokens issue --name' adds a device.",
            )
    return named


def _post(headers: Headers, device_id: str, body: bytes, limits: Limits) -> _Post:
    """Read the headers; raise HTTPException when they ask for what we don't do."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "zstd"):
        raise HTTPException(415, "Content-Encoding is gzip, zstd, or left out.")
    key = headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= limits.key_bytes_max and key.isascii() and key.isprintable()):
        raise HTTPException(400, f"an Idempotency-Key is 1 to {limits.key_bytes_max} printable ASCII characters.")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return _Post(device_id, body, encoding, content_type in LINES, key)


def _encoding(post: _Post) -> Literal["plain", "gzip", "zstd"]:
    """Believe the header, else the body's first bytes: no JSON begins like this."""
    if post.encoding in ("gzip", "x-gzip") or (not post.encoding and post.body.startswith(b"\x1f\x8b")):
        return "gzip"
    if post.encoding == "zstd" or (not post.encoding and post.body.startswith(b"\x28\xb5\x2f\xfd")):
        return "zstd"
    return "plain"


def _foreign(post: _Post, plain: bytes, bucket: str, key: str, now: datetime) -> Delivery:
    delivery = read_foreign(
        plain, lines_only=post.lines_only, bucket=bucket, key=key, version="", device_id=post.device_id
    )
    if not (post.lines_only or delivery.lines) and len(delivery.refused) == 1:
        # One broken document, not a bad line among good ones: its sender keeps it, so we need not.
        refused = delivery.refused[0]
        raise RefusedBody(refused.line, refused.reason)
    return replace(delivery, captured_at=format_instant(now))
