"""What operators and their tools call: load on demand, and health.

May be relied on: loading needs a service token; health needs none and tells nothing but whether the database
answers.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import Literal

import msgspec
import psycopg
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.body import read_body
from server.config import Limits
from server.database import named_queries
from server.loader import LoadSummary
from server.tokens import SERVICE_ROLE, Identity, bearer


def load_routes(
    authenticate: Callable[[str], Identity], load_day: Callable[[date | None], LoadSummary], limits: Limits
) -> list[Route]:
    """Return the route by which an operator loads now, or loads one day again."""

    async def respond(request: Request) -> Response:
        token = bearer(request.headers.get("authorization"))
        identity = await run_in_threadpool(authenticate, token)
        if identity.role != SERVICE_ROLE:
            raise HTTPException(403, "only a service token may load: 'up' keeps one in DATA/secrets.")
        body = await read_body(request, limits.report_bytes_max, limits.body_stall_s)
        try:
            asked = msgspec.json.decode(body or b"{}", type=dict[Literal["date"], date | None])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise HTTPException(400, 'the body is {"date": "2026-01-20"} for one day, or {}.') from None
        summary = await run_in_threadpool(load_day, asked.get("date"))
        return JSONResponse(asdict(summary))

    return [Route("/load-bronze-from-storage", respond, methods=["POST"])]


def health_routes(pool: ConnectionPool, limits: Limits) -> list[Route]:
    """Return the route that says whether we can do our work: 200 while the database answers, else 503."""

    def ask() -> None:
        with pool.connection(limits.database_wait_s) as connection:
            connection.execute(named_queries("operator")["alive"])

    async def respond(_: Request) -> Response:
        try:
            await run_in_threadpool(ask)
        except psycopg.Error:
            waits = {"Retry-After": str(limits.retry_after_s)}
            return JSONResponse({"status": "unavailable", "database": "does not answer"}, 503, waits)
        return JSONResponse({"status": "ok", "database": "answers"})

    return [Route("/healthz", respond, methods=["GET"])]
