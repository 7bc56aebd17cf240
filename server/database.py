"""The database: connections, migrations, and the SQL files by name.

May be relied on:
- A connection from the pool is alive when handed out, also after a restart of PostgreSQL.
- A migration is applied whole or not at all, once, by one process at a time; a model (a view or function
  that may be replaced) is applied again whenever its text, or that of one before it, changed.
- `transact` ends with the work committed once, however often PostgreSQL asked to begin again.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import psycopg
import structlog
import tenacity
from psycopg_pool import ConnectionPool

from server.errors import Misconfigured

SQL = Path(__file__).parent / "sql"

MODEL_FOLDERS = ("edge", "bronze", "silver", "gold")
"""In this order, files by name: a model may use those before it."""

CONNECT_TIMEOUT_S = 10
"""Longer than a PostgreSQL under load takes to answer, short enough to be noticed as an outage."""

BEGIN_AGAIN_MAX = 8
"""Tries of one transaction. Inserts in key order make deadlocks rare: this many in a row is a defect."""

_QUERY_HEAD = re.compile(r"^-- (\w+) -- \S.*$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d+)_(\w+)\.sql")

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


def migrate(connection: psycopg.Connection, sql: Path = SQL) -> tuple[str, ...]:
    """Bring the database to this version's schema; return the names of the files applied.

    Takes a connection in autocommit. Raises Misconfigured, with nothing applied, when an applied migration
    was edited since, or when another project's migration has its number.
    """
    queries = named_queries("database")
    connection.execute(queries["lock_migrations"])
    try:
        connection.execute(queries["make_ledger"])
        return (*_apply_migrations(connection, sql), *_apply_models(connection, sql))
    finally:
        if not connection.broken:
            connection.execute(queries["unlock_migrations"])


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def _apply_migrations(connection: psycopg.Connection, sql: Path) -> Iterator[str]:
    queries = named_queries("database")
    applied = {row[0]: row[1:] for row in connection.execute(queries["applied_migrations"])}
    waiting = []
    for path in sorted((sql / "migrations").glob("*.sql")):
        found = _MIGRATION.fullmatch(path.name)
        if not found:
            raise Misconfigured(f"{path}: a migration is called NUMBER_NAME.sql; rename it")
        version, name = found.groups()
        file = _File(name, path.read_text(encoding="utf-8"))
        if version not in applied:
            waiting.append((version, file, True))
            continue
        applied_name, checksum = applied[version]
        if applied_name != name:
            raise Misconfigured(
                f"{path.name}: number {version} was used in this database by another migration, "
                f"{applied_name!r}; give scout-edge a database of its own"
            )
        if checksum is None:  # applied by Supabase's own tool, which keeps none
            waiting.append((version, file, False))
        elif checksum != file.checksum:
            raise Misconfigured(
                f"{path.name} was edited after it was applied to this database; restore its text and write "
                "the change as a new migration"
            )
    for version, file, is_new in waiting:
        with connection.transaction():
            if is_new:
                connection.execute(file.text.encode())
            record = {"version": version, "name": file.name, "text": file.text, "checksum": file.checksum}
            connection.execute(queries["record_migration"], record)
        if is_new:
            yield f"{version}_{file.name}"


def _apply_models(connection: psycopg.Connection, sql: Path) -> Iterator[str]:
    """Apply the first changed model and all after it, in one transaction.

    Those after it may stand on it: where it drops and makes a view anew, they would be gone otherwise.
    """
    queries = named_queries("database")
    applied: dict[str, str] = dict(connection.execute(queries["applied_models"]).fetchall())
    files = [
        _File(f"{folder}/{path.stem}", path.read_text(encoding="utf-8"))
        for folder in MODEL_FOLDERS
        for path in sorted((sql / "models" / folder).glob("*.sql"))
    ]
    changed = [place for place, file in enumerate(files) if applied.get(file.name) != file.checksum]
    with connection.transaction():
        for file in files[min(changed, default=len(files)) :]:
            connection.execute(file.text.encode())
            connection.execute(queries["record_model"], {"name": file.name, "checksum": file.checksum})
            yield file.name
