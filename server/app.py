"""Joins the endpoints into one application, with the answers that are the same everywhere.

    POST /ingest-transaction, /functions/v1/ingest-transaction    server/ingest.py
    POST /storage/v1/object/scout-ingest/DAY/DEVICE/FILE          server/storage_api.py
    POST /rest/v1/rpc/heartbeat                                   server/heartbeat.py
    POST /enrol, /oauth/nonce, /oauth/token                       server/identity_api.py
    POST /load-bronze-from-storage                                server/operator_api.py
    GET  /healthz                                                 server/operator_api.py
    GET  /readyz                                                  server/readiness.py
    GET  /metrics                                                 server/metrics.py
    GET  /fleet, and what lies below it                           server/pages/

May be relied on: every answer but a page is JSON, errors included, and says what to do next. The log has one line per
request, without query string, headers or body; of an unexpected error it has the place, not the words, as
those may quote a sale.
"""

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from http import HTTPStatus
from pathlib import Path
from time import monotonic

import psycopg
import structlog
from psycopg_pool import ConnectionPool
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import tokens
from server.body import BodyStalled, BodyTooLarge
from server.bucket import Bucket, BucketFault
from server.committer import Committer
from server.config import Limits
from server.door import Door
from server.heartbeat import heartbeat_routes
from server.identity_api import identity_routes
from server.ingest import PATHS as INGEST_PATHS
from server.ingest import ingest_routes
from server.loader import LoadSummary
from server.metrics import metrics_routes
from server.operator_api import health_routes, load_routes
from server.pages.routes import Parts as PageParts
from server.pages.routes import fleet_routes
from server.rate import RateLimit
from server.readiness import ready_routes
from server.standing import Fleet
from server.storage_api import storage_routes
from server.traffic import Traffic

NEXT_STEPS = {
    404: "There is nothing here. The paths are listed in docs/endpoints.md.",
    405: "This path takes another method.",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the endpoints stand on. The owner of the parts closes them."""

    pool: ConnectionPool
    bucket: Bucket
    committer: Committer
    secret: str
    now: Callable[[], datetime]
    load_day: Callable[[date | None], LoadSummary]
    wake_loader: Callable[[], None]
    on_stored: Callable[[str], None]  # hears the key of each new object
    limits: Limits
    is_open: bool = False  # whether posts without a token are taken from this machine
    previous: tokens.PreviousSecret | None = None
    data: Path | None = None  # where `up` keeps everything
    monotonic: Callable[[], float] = monotonic  # seconds from an arbitrary start
    rng: random.Random = field(default_factory=random.Random)


def create_app(parts: Parts, connections: Callable[[], int] = lambda: 0) -> ASGIApp:
    """Join the routes behind the door. `connections` counts the open ones, where the HTTP server can tell."""

    def read_token(token: str) -> tokens.Identity:
        return tokens.read(token, parts.secret, parts.now(), parts.previous)

    def admit(identity: tokens.Identity) -> None:
        with parts.pool.connection() as connection:
            tokens.admit(connection, identity)

    def authenticate(token: str) -> tokens.Identity:
        identity = read_token(token)
        admit(identity)
        return identity

    async def unavailable(_: Request, error: Exception) -> Response:
        log.warning("database_unavailable", error=type(error).__name__)
        waits = {"Retry-After": str(parts.limits.retry_after_s)}
        return _problem(503, "the database does not answer: nothing was stored; send it again.", waits)

    async def bucket_unavailable(_: Request, error: Exception) -> Response:
        log.warning("bucket_unavailable", bucket=parts.bucket.name, reason=str(error))
        return _problem(503, str(error), {"Retry-After": str(parts.limits.retry_after_s)})

    rate = RateLimit(parts.limits.device_posts_per_s_max, parts.limits.device_posts_burst, parts.monotonic)
    fleet = Fleet(parts.pool, parts.monotonic)
    uploads = storage_routes(authenticate, parts.bucket, parts.on_stored, parts.limits, rate)
    traffic = Traffic({*INGEST_PATHS, *(route.path for route in uploads)}, parts.monotonic)
    pages = PageParts(parts.pool, fleet, traffic, parts.secret, parts.now, parts.limits, authenticate)
    application = Starlette(
        routes=[
            *ingest_routes(
                authenticate, parts.pool, parts.committer, parts.limits, rate=rate, now=parts.now, is_open=parts.is_open
            ),
            *uploads,
            *heartbeat_routes(authenticate, parts.pool, parts.wake_loader, parts.limits),
            *identity_routes(parts.pool, parts.secret, parts.limits, parts.now),
            *load_routes(authenticate, parts.load_day, parts.limits),
            *health_routes(parts.pool, parts.limits),
            *ready_routes(parts.pool, parts.bucket, parts.limits, parts.monotonic),
            *metrics_routes(
                read_token,
                admit,
                traffic,
                fleet,
                deliveries_waiting=lambda: parts.committer.waiting,
                data=parts.data,
            ),
            *fleet_routes(pages),
        ],
        exception_handlers={
            HTTPException: _refused,
            tokens.TokenRefused: _token_refused,
            BodyTooLarge: _too_large,
            BodyStalled: _stalled,
            BucketFault: bucket_unavailable,
            psycopg.OperationalError: unavailable,
            Exception: _failed,
        },
    )
    traffic.name(application.routes)
    return _Logged(Door(application, parts.limits, connections, parts.rng), traffic)


class _Logged:
    """One event per request around an application, counted too, and no traceback beyond it."""

    def __init__(self, application: ASGIApp, traffic: Traffic) -> None:
        self._application = application
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        status, began = 0, monotonic()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        event = "request_answered"
        try:
            await self._application(scope, receive, send_and_note)
        except ClientDisconnect:
            event = "client_left"
        except Exception as error:  # noqa: BLE001  # answered with 500 already; its words may quote a sale
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename}:{frame.lineno}"
            sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
            log.error("request_failed", error=type(error).__name__, at=place, sqlstate=sqlstate)  # noqa: TRY400
        seconds = monotonic() - began
        self._traffic.note(scope, status, seconds)
        log.info(event, method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 1))


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    word = HTTPStatus(status).phrase.lower().replace(" ", "_")
    return JSONResponse({"error": word, "message": message}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = NEXT_STEPS.get(error.status_code, error.detail)
    return _problem(error.status_code, message, dict(error.headers or {}))


async def _token_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, tokens.TokenRefused)
    challenge = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    message = f"{error}. 'scout-server tokens issue' makes a new token."
    return _problem(error.http_status, message, challenge)


async def _too_large(_: Request, error: Exception) -> Response:
    return _problem(413, f"{error} Send it in parts.")


async def _stalled(_: Request, error: Exception) -> Response:
    return _problem(408, str(error))


async def _failed(_: Request, __: Exception) -> Response:
    return _problem(500, "this is a defect of the server; its log has the place. Nothing was stored.")
