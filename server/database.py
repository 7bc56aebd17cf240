"""The database: connections, transactions, and the queries by name.

May be relied on:
- A connection from the pool is alive when handed out, also after a restart of PostgreSQL.
- `transact` ends with the work committed once, however often PostgreSQL asked to begin again.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import psycopg
import structlog
import tenacity
from psycopg_pool import ConnectionPool

SQL = Path(__file__).parent / "sql"

CONNECT_TIMEOUT_S = 10
"""Longer than a PostgreSQL under load takes to answer, short enough to be noticed as an outage."""

RECONNECT_S = 10.0
"""How long one attempt at a connection may double its waits; the next request begins another. In a long outage the
waits would else outgrow it, and PostgreSQL be back for a minute before anybody looked."""

BEGIN_AGAIN_MAX = 8
"""Tries of one transaction. Inserts in key order make deadlocks rare: this many in a row is a defect."""

_QUERY_HEAD = re.compile(r"^-- (\w+) -- \S.*$", re.MULTILINE)

T = TypeVar("T")
log = structlog.get_logger()


def open_pool(database_url: str, size_max: int = 10) -> ConnectionPool:
    """Open connections in autocommit: callers write `with connection.transaction():`.

    A broken connection is replaced when it is asked for. While PostgreSQL is down, asking raises
    psycopg_pool.PoolTimeout after 30 s.
    """
    return ConnectionPool(
        database_url,
        min_size=1,
        max_size=size_max,
        kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S},
        check=ConnectionPool.check_connection,
        reconnect_timeout=RECONNECT_S,
        open=True,
    )


def transact(
    pool: ConnectionPool,
    work: Callable[[psycopg.Connection], T],
    sleep: Callable[[float], None] = tenacity.nap.sleep,
) -> T:
    """Do `work` in one transaction and commit it; begin again when PostgreSQL says so (40P01, 40001).

    `work` may therefore run several times. Raises the last error after BEGIN_AGAIN_MAX tries.
    """
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)),
        stop=tenacity.stop_after_attempt(BEGIN_AGAIN_MAX),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
        before_sleep=lambda state: log.info("transaction_begun_again", attempt=state.attempt_number),
        sleep=sleep,
        reraise=True,
    ):
        with attempt, pool.connection() as connection, connection.transaction():
            done = work(connection)
    return done


@cache
def named_queries(room: str) -> dict[str, str]:
    """Read server/sql/queries/ROOM.sql: each query by the name in its head, `-- name -- purpose`."""
    text = (SQL / "queries" / f"{room}.sql").read_text(encoding="utf-8")
    _, *parts = _QUERY_HEAD.split(text)
    return {name: query.strip() for name, query in zip(parts[::2], parts[1::2], strict=True)}
