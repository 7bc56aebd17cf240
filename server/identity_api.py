"""The endpoints by which devices come by their tokens; what crosses is in wire/identity.py.

    POST /enrol         a code and a new key   -> the first token
    POST /oauth/nonce   nothing                -> what to sign next
    POST /oauth/token   a signed assertion     -> another token

May be relied on: no token is needed here and none helps. A refusal has the shape of RFC 6749 section 5.2. Who tries
wrong codes is made to wait. No code, key, nonce or token is ever logged.
"""

import math
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import identity
from server.body import read_body
from server.config import Limits
from server.nonces import new_nonce
from server.tries import Tries
from wire.identity import (
    INVALID_REQUEST,
    TEMPORARILY_UNAVAILABLE,
    EnrolRequest,
    NotARequest,
    TokenAnswer,
    TokenError,
    TokenRequest,
)

REQUEST_BYTES_MAX = 16 * 1024
WRONG_CODES_MAX = 10
WRONG_CODES_WINDOW_S = 600.0
_UNCACHED = {"Cache-Control": "no-store"}

log = structlog.get_logger()


Answer = Callable[[Request], Awaitable[Response]]


def identity_routes(pool: ConnectionPool, secret: str, limits: Limits, now: Callable[[], datetime]) -> list[Route]:
    """Return the routes."""

    async def nonce(_: Request) -> Response:
        return _json(200, new_nonce(secret, now()).to_json())

    return [
        Route("/enrol", _enrolling(pool, secret, limits, now), methods=["POST"]),
        Route("/oauth/nonce", nonce, methods=["POST"]),
        Route("/oauth/token", _renewing(pool, secret, limits, now), methods=["POST"]),
    ]


def _enrolling(pool: ConnectionPool, secret: str, limits: Limits, now: Callable[[], datetime]) -> Answer:
    tries = Tries(WRONG_CODES_MAX, WRONG_CODES_WINDOW_S)

    def enrolled(asked: EnrolRequest) -> TokenAnswer:
        with pool.connection(limits.database_wait_s) as connection:
            return identity.enrol(connection, asked, secret, now())

    async def respond(request: Request) -> Response:
        address = request.client.host if request.client else ""
        wait_s = tries.begin(address, now().timestamp())
        if wait_s > 0.0:
            log.warning("enrolment_braked", wait_s=round(wait_s))
            return _error(429, TEMPORARILY_UNAVAILABLE, "too many wrong codes came from here: wait", math.ceil(wait_s))
        is_wrong = False
        try:
            asked = EnrolRequest.parse(await read_body(request, REQUEST_BYTES_MAX, limits.body_stall_s))
            answer = await run_in_threadpool(enrolled, asked)
        except NotARequest as malformed:
            return _error(400, INVALID_REQUEST, str(malformed))
        except identity.Refused as refused:
            is_wrong = isinstance(refused, identity.WrongCode)
            return _refused("enrolment_refused", refused)
        finally:
            if not is_wrong:
                tries.take_back(address)
        log.info("device_enrolled", device=answer.device_id)
        return _json(200, answer.to_json())

    return respond


def _renewing(pool: ConnectionPool, secret: str, limits: Limits, now: Callable[[], datetime]) -> Answer:
    def renewed(asked: TokenRequest) -> TokenAnswer:
        with pool.connection(limits.database_wait_s) as connection:
            return identity.renew(connection, asked, secret, now())

    async def respond(request: Request) -> Response:
        try:
            asked = TokenRequest.parse(await read_body(request, REQUEST_BYTES_MAX, limits.body_stall_s))
            answer = await run_in_threadpool(renewed, asked)
        except NotARequest as malformed:
            return _error(400, str(malformed), "a form with grant_type, client_assertion_type and client_assertion")
        except identity.Refused as refused:
            return _refused("renewal_refused", refused)
        log.info("token_renewed", device=answer.device_id)
        return _json(200, answer.to_json())

    return respond


def _refused(event: str, refused: identity.Refused) -> Response:
    log.warning(event, error=refused.error, reason=str(refused))
    return _error(refused.http_status, refused.error, str(refused), refused.retry_after_s)


def _error(status: int, error: str, description: str, retry_after_s: int | None = None) -> Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    return _json(status, TokenError(error, description).to_json(), headers)


def _json(status: int, content: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, _UNCACHED | (headers or {}), media_type="application/json")
