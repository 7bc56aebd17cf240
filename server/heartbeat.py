"""The call home.

`POST /rest/v1/rpc/heartbeat` runs the Postgres function of that name as Supabase's PostgREST does: one
transaction, the token's role and claims set for it, errors as `{"code", "details", "hint", "message"}`. An
agent can't tell the two apart.
"""

from collections.abc import Callable
from typing import Any

import orjson
import psycopg
import structlog
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.body import BodyTooLarge, read_body
from server.config import Limits
from server.database import named_queries
from server.tokens import EDGE_UPLOADER, Identity, TokenRefused, bearer

_QUERIES = named_queries("heartbeat")

log = structlog.get_logger()


def heartbeat_routes(
    authenticate: Callable[[str], Identity],
    pool: ConnectionPool,
    on_awaited: Callable[[], None],
    limits: Limits,
) -> list[Route]:
    """Return the route. `on_awaited` is called when a device awaits batches that are not settled."""

    async def respond(request: Request) -> Response:
        try:
            token = bearer(request.headers.get("authorization"))
            identity = await run_in_threadpool(authenticate, token)
            body = await read_body(request, limits.report_bytes_max, limits.body_stall_s)
        except TokenRefused as refused:
            code = "42501" if refused.http_status == 403 else "PGRST301"
            return _error(refused.http_status, code, str(refused))
        except BodyTooLarge as too_large:
            return _error(413, "PGRST102", str(too_large))
        if identity.role != EDGE_UPLOADER:
            status = 401 if identity.role == "anon" else 403
            return _error(status, "42501", "permission denied for function heartbeat")
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            return _error(400, "PGRST102", "Empty or invalid json")
        try:
            reply = await run_in_threadpool(call_home, pool, identity, body.decode(), limits)
        except psycopg.OperationalError:
            raise  # the database is down: answered as everywhere
        except psycopg.Error as error:
            diagnostic = error.diag
            status = 403 if diagnostic.sqlstate == "42501" else 400
            message = diagnostic.message_primary or type(error).__name__
            return _error(status, diagnostic.sqlstate or "XX000", message, diagnostic.message_hint)
        if any(state != "settled" for state in reply["batches"].values()):
            on_awaited()
        return JSONResponse(reply)

    return [Route("/rest/v1/rpc/heartbeat", respond, methods=["POST"])]


def call_home(pool: ConnectionPool, identity: Identity, report: str, limits: Limits) -> dict[str, Any]:
    """Run the database's heartbeat as the device. Raises psycopg.Error as the database does."""
    with pool.connection(limits.database_wait_s) as connection, connection.transaction():
        claims = orjson.dumps(identity.claims).decode()
        connection.execute(_QUERIES["claims"], {"claims": claims})
        connection.execute(_QUERIES["become_device"])
        row = connection.execute(_QUERIES["heartbeat"], {"report": report}).fetchone()
    reply: dict[str, Any] = row[0] if row else {}
    return reply


def _error(status: int, code: str, message: str, hint: str | None = None) -> Response:
    return JSONResponse({"code": code, "details": None, "hint": hint, "message": message}, status)
