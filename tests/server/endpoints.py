"""The endpoints on a real port, with a client and what a test wants to look at."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import uvicorn
from psycopg_pool import ConnectionPool
from starlette.applications import Starlette
from starlette.routing import Route

from server import tokens
from server.app import Parts, create_app
from server.bucket import Bucket
from server.committer import Committer
from server.config import LIMITS, Limits
from server.loader import LoadSummary, load
from wire.batch import BatchName, content_hash
from wire.record import Record, to_line

SECRET = "a-secret-for-tests-of-at-least-32-bytes"
NOW = datetime(2026, 1, 20, 8, 30, tzinfo=UTC)
DEADLINE_S = 30
EPOCH = "0123456789abcdef"


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    at: datetime = NOW

    def now(self) -> datetime:
        """The time at which it stands."""
        return self.at


@dataclass
class Wakes:
    """Counts how often the loader was woken, and the objects that it was told of."""

    count: int = 0
    stored: list[str] = field(default_factory=list)

    def __call__(self, *stored: str) -> None:
        """Note that the loader was woken."""
        self.count += 1
        self.stored += stored


@dataclass
class Endpoints:
    """A running server: `client` speaks to it, the rest is for looking behind it."""

    client: httpx.Client
    base_url: str
    pool: ConnectionPool
    bucket: Bucket
    clock: Clock
    wakes: Wakes
    application: Any
    commits: list[int] = field(default_factory=list)

    def device(self, device_id: str = "pi-05") -> str:
        """Add a device and return a token of it."""
        with self.pool.connection() as connection:
            tokens.add_device(connection, device_id)
            return tokens.issue(connection, SECRET, device_id, tokens.EDGE_UPLOADER, days=30, now=self.clock.at)

    def service(self) -> str:
        """Return a service token."""
        with self.pool.connection() as connection:
            return tokens.issue(connection, SECRET, "operator", tokens.SERVICE_ROLE, days=30, now=self.clock.at)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.pool.connection() as connection:
            return connection.execute(query.encode()).fetchall()


def served(application: Any) -> dict[str, set[str]]:
    """Methods of every route of an application, by path."""
    while not isinstance(application, Starlette):
        application = application._application
    found: dict[str, set[str]] = {}
    for route in application.routes:
        assert isinstance(route, Route)
        found.setdefault(re.sub(r":\w+}", "}", route.path), set()).update(route.methods or ())
    return found


def bearer(token: str, **headers: str) -> dict[str, str]:
    """Headers with a token."""
    return {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in headers.items()}


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    """A token of any claims."""
    return jwt.encode(claims, secret, algorithm=algorithm)


def claims_of_device(device_id: str = "pi-05", days: float = 30, **changed: Any) -> dict[str, Any]:
    """What a good token holds; None removes a claim."""
    at = int(NOW.timestamp())
    claims = {"role": "edge_uploader", "sub": device_id, "iat": at, "exp": at + int(days * 86_400)}
    return {name: value for name, value in (claims | changed).items() if value is not None}


def outlaws(endpoints: Endpoints) -> dict[str, str | None]:
    """Tokens that open nothing, by what is wrong with them; pi-05 and pi-06 are known devices afterwards.

    Each differs from a good one in one thing only.
    """
    endpoints.device("pi-05")
    endpoints.device("pi-06")
    endpoints.device("pi-07")
    revoked = endpoints.device("pi-05")
    gone = endpoints.device("pi-09")
    with endpoints.pool.connection() as connection:
        jti = jwt.decode(revoked, options={"verify_signature": False})["jti"]
        connection.execute("update scout_edge.tokens set revoked_at = now() where jti = %s", [jti])
        connection.execute("update scout_edge.devices set revoked_at = now() where device_id = 'pi-09'")
        connection.execute(
            "update scout_edge.devices set tokens_valid_from = %s where device_id = 'pi-07'",
            [NOW + timedelta(seconds=1)],
        )
    good = signed(claims_of_device())
    at = int(NOW.timestamp())
    return {
        "none": None,
        "garbage": "garbage",
        "wrong secret": signed(claims_of_device(), secret="another-secret-of-at-least-32-bytes-"),
        "tampered": good[:-6] + ("AAAAAA" if not good.endswith("AAAAAA") else "BBBBBB"),
        "alg none": signed(claims_of_device(), secret="", algorithm="none"),
        "alg HS384": signed(claims_of_device(), secret=SECRET * 2, algorithm="HS384"),
        "expired": signed(claims_of_device(iat=at - 86_400, exp=at - 10)),
        "no exp": signed(claims_of_device(exp=None)),
        "exp as text": signed(claims_of_device(exp=str(at + 60))),
        "no iat": signed(claims_of_device(iat=None)),
        "iat ahead": signed(claims_of_device(iat=at + 3600, exp=at + 7200)),
        "too long": signed(claims_of_device(days=30.5)),
        "not yet": signed(claims_of_device(nbf=at + 60)),
        "token revoked": revoked,
        "device revoked": gone,
        "device unknown": signed(claims_of_device("pi-99")),
        "no subject": signed(claims_of_device(sub=None)),
        "before rotation": signed(claims_of_device("pi-07")),
        "anon": signed(claims_of_device(role="anon")),
        "authenticated": signed(claims_of_device(role="authenticated")),
        "no role": signed(claims_of_device(role=None)),
    }


def batch(first: int, last: int, device_id: str = "pi-05") -> tuple[bytes, str]:
    """A batch of the agent's and its name."""
    lines = [
        to_line(
            Record(
                seq=seq,
                id=f"019a0000-0000-7000-8000-{seq:012d}",
                captured_at="2026-01-20T08:00:00.000Z",
                clock="synced",
                boot="boot-1",
                mono_ms=seq,
                payload=b'{"transaction_id":"t%d"}' % seq,
            )
        )
        for seq in range(first, last + 1)
    ]
    jsonl = b"".join(line + b"\n" for line in lines)
    name = BatchName(date(2026, 1, 20), device_id, EPOCH, first, last, content_hash(jsonl)[:16])
    return jsonl, name.key


@contextmanager
def running(
    pool: ConnectionPool,
    bucket: Bucket,
    *,
    limits: Limits = LIMITS,
    secret: str = SECRET,
    previous: tokens.PreviousSecret | None = None,
    committer: Callable[[ConnectionPool, Limits, Callable[[], None]], Committer] = Committer,
    is_open: bool = False,
    data: Path | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    **changed_limits: Any,
) -> Iterator[Endpoints]:
    """Run the endpoints in a thread until the test is over."""
    limits = replace(limits, **changed_limits)
    pool.timeout = limits.database_wait_s
    clock, wakes, commits = Clock(), Wakes(), []

    def load_day(day: date | None) -> LoadSummary:
        return load(pool, bucket, today=clock.at.date(), day=day)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        committer(pool, limits, lambda: commits.append(1)) as opened,
    ):
        parts = Parts(
            pool, bucket, opened, secret, clock.now, load_day, wakes, wakes, limits, is_open, previous, data, monotonic
        )
        application = create_app(parts)
        server = uvicorn.Server(
            uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=base_url, timeout=DEADLINE_S, trust_env=False) as client:
                yield Endpoints(client, base_url, pool, bucket, clock, wakes, application, commits)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
