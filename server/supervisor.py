"""`scout-server up`: one process, one directory, everything embedded. `serve`: the endpoints alone.

    DATA/postgres          PostgreSQL (server/embedded.py)
    DATA/bucket            the objects (server/buckets/folder.py), unless they are to lie elsewhere
    DATA/secrets           jwt-secret, jwt-secret-previous, service-token, postgres-password

Threads beside the one that answers requests: the committer, the loader loop, the ETL loop, the gold loop, the
watchdog that starts a PostgreSQL that died again, and one that keeps the service token fresh. Under systemd, one more
looks whether we answer (server/vigil.py).

May be relied on: SIGTERM or SIGINT ends it in order, with exit status 0, within 30 s (a PostgreSQL that is
just recovering from a crash may take longer); what was acknowledged by then, or before a kill -9, is committed.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import structlog
import uvicorn
from psycopg_pool import ConnectionPool

from server.app import Parts, create_app
from server.bucket import Bucket
from server.buckets import open_bucket
from server.committer import Committer
from server.config import LIMITS, Address, Limits, bucket_folder, bucket_url, now
from server.data_directory import DataDirectory
from server.database import open_pool
from server.embedded import EmbeddedPostgres
from server.errors import Misconfigured
from server.etl import run_etl
from server.files import hand_over
from server.gold import REFRESH_AFTER, refresh
from server.ingest import PATHS
from server.loader import LoadSummary, load
from server.loading import Loading
from server.loop import Loop
from server.schema import migrate
from server.secrets import (
    VARIABLE,
    find_previous_secret,
    jwt_secret_file,
    keep_jwt_secret,
    keep_service_token,
    service_token_file,
)
from server.systemd import Manager
from server.tokenless import refuse_open_to_others
from server.tokens import PreviousSecret
from server.vigil import Vigil

LOADER_INTERVAL_S = 5.0
ETL_INTERVAL_S = 5.0
WATCHDOG_INTERVAL_S = 1.0
SERVICE_TOKEN_INTERVAL_S = 6 * 3600.0
GOLD_INTERVAL_S = 60.0
"""How often it is asked whether something is due that is done once a day: two look-ups by index."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """What an operator needs to know of a server that is up."""

    base_url: str
    data: Path
    secret_from: str
    service_token: Path
    is_open: bool


class Stop:
    """Asked for by SIGTERM or SIGINT, from its `with` on; asked for once, it stays asked for."""

    def __init__(self) -> None:
        self._asked = False
        self._on_ask: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # No lock may be taken in here: a signal finds the main thread anywhere.
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, lambda *_: self.ask())
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ask(self) -> None:
        """End, as soon as what is under way is done."""
        self._asked = True
        if self._on_ask:
            self._on_ask()

    def then(self, on_ask: Callable[[], None]) -> None:
        """Call this when asked to end; at once, if that was before."""
        self._on_ask = on_ask
        if self._asked:
            on_ask()


def up(
    data: Path,
    address: Address,
    environment: Mapping[str, str],
    *,
    bucket_at: str | None = None,
    is_open: bool = False,
    on_ready: Callable[[Ready], None],
    stop: Stop,
    limits: Limits = LIMITS,
) -> None:
    """Run everything in the directory `data` until `stop`; with `bucket_at`, a URL, the objects lie there.

    `is_open`: take posts without a token from this machine, which only a loopback address may.
    Raises DataDirectoryHeld, Misconfigured, BucketRefused and PostgresUnavailable, each saying what to do.
    """
    manager = Manager(environment)
    with ExitStack() as house:
        if is_open:
            _open(address)
        manager.tell("STATUS=Starts PostgreSQL")
        directory = house.enter_context(DataDirectory(data))
        listener = house.enter_context(listen(address))
        postgres = house.enter_context(EmbeddedPostgres(directory, environment=environment))
        dsn = postgres.dsn
        bucket = house.enter_context(open_bucket(bucket_at or _own_bucket(directory.path), environment))
        pool = house.enter_context(_pool(dsn, limits))
        manager.tell("STATUS=Brings the database to this version's tables: after an upgrade this may take a while")
        with pool.connection() as connection:
            migrate(connection)
            secret = keep_jwt_secret(connection, directory.path, environment)
        previous = find_previous_secret(directory.path, environment, now())

        def keep_token() -> None:
            with pool.connection() as connection:
                if keep_service_token(connection, directory.path, secret, now()):
                    log.info("service_token_renewed")

        def watch() -> None:
            if postgres.ensure_running() and postgres.dsn != dsn:
                # Our connections lead to the old port, which someone else took meanwhile.
                log.error("postgres_moved")
                moved.set()
                stop.ask()

        moved = threading.Event()
        keep_token()
        etl_loop = Loop("etl", lambda: run_etl(pool), ETL_INTERVAL_S)
        loading = Loading(pool, bucket, etl_loop.nudge)
        loader_loop = Loop("loader", loading.step, LOADER_INTERVAL_S)
        # It must have ended before PostgreSQL is stopped: it would start it again.
        loops = [
            house.enter_context(Loop("watchdog", watch, WATCHDOG_INTERVAL_S, stop_s=None)),
            house.enter_context(Loop("service_token", keep_token, SERVICE_TOKEN_INTERVAL_S)),
            house.enter_context(etl_loop),
            house.enter_context(loader_loop),
            house.enter_context(gold_loop(pool)),
        ]
        committer = house.enter_context(Committer(pool, limits, etl_loop.nudge))

        def load_day(day: date | None) -> LoadSummary:
            summary = load(pool, bucket, today=now().date(), day=day)
            etl_loop.nudge()
            return summary

        def load_stored(key: str) -> None:
            loading.note_stored(key)
            loader_loop.nudge()

        parts = Parts(
            pool,
            bucket,
            committer,
            secret,
            now,
            load_day,
            loader_loop.nudge,
            load_stored,
            limits,
            is_open,
            previous,
            data=directory.path,
        )
        directory.note_ready()
        on_ready(
            Ready(
                _base_url(listener),
                directory.path,
                VARIABLE if environment.get(VARIABLE) else str(jwt_secret_file(directory.path)),
                service_token_file(directory.path),
                is_open,
            )
        )
        _answer_requests(parts, listener, stop, manager, loops)
        log.info("server_stopping")
        # Both at once, so that one waits for the other's last step.
        etl_loop.stop()
        loader_loop.stop()
    if moved.is_set():
        raise Misconfigured(f"the port of PostgreSQL in {data} was taken by another program: start again.")


def serve(
    database_url: str,
    bucket: Bucket,
    secret: str,
    address: Address,
    *,
    is_open: bool = False,
    previous: PreviousSecret | None = None,
    on_ready: Callable[[str], None],
    stop: Stop,
    environment: Mapping[str, str],
    limits: Limits = LIMITS,
) -> None:
    """Answer requests against a given database and bucket until `stop`; loader and ETL run elsewhere.

    `is_open` as in up().
    """
    if is_open:
        _open(address)
    with (
        listen(address) as listener,
        _pool(database_url, limits) as pool,
        gold_loop(pool) as gold,
        Committer(pool, limits, _nobody_waits) as committer,
    ):

        def load_day(day: date | None) -> LoadSummary:
            return load(pool, bucket, today=now().date(), day=day)

        wake, stored = _nobody_waits, _nobody_waits
        parts = Parts(pool, bucket, committer, secret, now, load_day, wake, stored, limits, is_open, previous)
        on_ready(_base_url(listener))
        _answer_requests(parts, listener, stop, Manager(environment), [gold])


def gold_loop(pool: ConnectionPool) -> Loop:
    """Make the loop that refreshes what is kept of gold. Not waited for at the end: nothing but work is lost."""
    return Loop("gold", lambda: refresh(pool, REFRESH_AFTER), GOLD_INTERVAL_S, stop_s=0.5)


@contextmanager
def listen(address: Address) -> Iterator[socket.socket]:
    """Open the listening socket. Raises Misconfigured when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        opened = socket.create_server((address.host, address.port), family=family, backlog=1024)
    except OSError as error:
        raise Misconfigured(
            f"can't listen on {address.host} port {address.port}: {os.strerror(error.errno or 0)}. "
            "Choose another address with --listen; port 0 takes a free one."
        ) from error
    with opened:
        yield opened


def _open(address: Address) -> None:
    """Say that posts without a token are taken here. Raises Misconfigured where others could reach it."""
    refuse_open_to_others(address)
    log.warning("open_without_token", to="programs on this machine", path=PATHS[0])


def _own_bucket(data: Path) -> str:
    """See that the folder of the server in `data` is there, closed to others; return its URL."""
    bucket_folder(data).mkdir(mode=0o700, exist_ok=True)
    hand_over(bucket_folder(data))
    bucket_folder(data).chmod(0o700)
    return bucket_url(data)


def _pool(database_url: str, limits: Limits) -> ConnectionPool:
    pool = open_pool(database_url)
    pool.timeout = limits.database_wait_s  # while PostgreSQL is away, 503 soon is the better answer
    return pool


def _answer_requests(
    parts: Parts, listener: socket.socket, stop: Stop, manager: Manager, loops: Sequence[Loop]
) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(parts, lambda: len(server.server_state.connections)),
            loop="uvloop",
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=parts.limits.stop_s,
        )
    )

    def end() -> None:
        server.should_exit = True

    stop.then(end)
    with Vigil(manager, Address(*listener.getsockname()[:2]), loops, lambda: server.should_exit):
        server.run(sockets=[listener])
        manager.tell("STOPPING=1")


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _nobody_waits(*_: str) -> None:
    """Loops that run elsewhere look for themselves."""
