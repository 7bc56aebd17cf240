"""The spool's file: opening it, its settings, and bringing an older one to this version.

May be relied on
- Every connection runs in WAL with synchronous=FULL: a commit is on storage that honours flush when it returns.
- A file of a newer agent is refused untouched. One of an older agent is upgraded in one transaction a step, so
  that a cut leaves it at one version or the next.
- agent/sql/NNN_*.sql are the steps, in the order of their numbers. `VERSION` counts them.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from agent.checksum import line_checksum
from agent.config import WAL_BYTES_KEPT
from agent.errors import LocalFault, SpoolBusy, SpoolDamaged, SpoolForbidden, SpoolMissing, SpoolRefused
from agent.statements import script_of

if TYPE_CHECKING:
    from sqlite_utils import Database

BUSY_TIMEOUT_S = 30.0
READING_TIMEOUT_S = 2.0  # whoever only looks gives up sooner, and says so

STEPS = tuple(
    sorted(
        entry.name.removesuffix(".sql")
        for entry in resources.files("agent").joinpath("sql").iterdir()
        if entry.name[:3].isdigit()
    )
)

VERSION = len(STEPS)
"""Rises with every step; an agent refuses a spool of a higher version without touching it."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the spool's file for reading and writing, made or upgraded where needed.

    Raises SpoolRefused for a newer agent's file, LocalFault when the disk or the file is in trouble.
    """
    if is_orphaned(path):
        raise LocalFault(f"{path} is gone or empty, but its WAL is there. Start the agent: it salvages what is in it.")
    connection = _connect(path)
    try:
        with _alone(path.parent):
            _refuse_newer(path)
            _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading_database(path: Path, timeout_s: float = READING_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
    """Give a connection that can't write, whether a daemon has the file open or not.

    Raises SpoolMissing, SpoolForbidden, SpoolBusy when it is locked for longer than that, SpoolDamaged, or
    LocalFault when it can't be read; also for what the caller's own statements meet.
    """
    connection = None
    try:
        if is_orphaned(path):
            raise SpoolDamaged(f"{path} is gone or empty, but its WAL is there")
        connection = _connect_reading(path, timeout_s)
        connection.row_factory = sqlite3.Row
        _register_functions(connection)
        yield connection
    except FileNotFoundError:
        raise SpoolMissing(f"{path} does not exist: no sale was ever taken here") from None
    except PermissionError:
        raise SpoolForbidden(f"{path}: this user may not read it") from None
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # Text that is none has no code of SQLite's: what is read is not what was written.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise SpoolDamaged(f"{path} is damaged: {error}") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise SpoolBusy(f"{path} is locked by another process") from error
        raise LocalFault(f"{path} can't be read: {error}") from error
    finally:
        if connection is not None:
            connection.close()


def _connect_reading(path: Path, timeout_s: float) -> sqlite3.Connection:
    path.stat()
    if not os.access(path, os.R_OK, effective_ids=True):
        raise PermissionError
    address = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=timeout_s)
    try:
        connection.execute("pragma schema_version")
    except sqlite3.OperationalError as error:
        connection.close()
        unmerged = path.with_name(path.name + "-wal")
        cant_make_files = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if not cant_make_files or unmerged.exists():
            raise
        # We may not make the -shm file beside it, and nobody has: so it doesn't change while we look.
        return sqlite3.connect(f"{address}&immutable=1", uri=True, timeout=timeout_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise LocalFault(f"{path}: {error}. Check that the directory exists and may be written.") from error
    connection.row_factory = sqlite3.Row
    _register_functions(connection)
    return connection


def is_orphaned(path: Path) -> bool:
    """Whether the database is gone or empty while its WAL is there. SQLite would delete that WAL, even only reading."""
    wal = path.with_name(path.name + "-wal")
    is_there = path.exists() and path.stat().st_size > 0
    return not is_there and wal.exists() and wal.stat().st_size > 0


def connect_reading(path: Path) -> sqlite3.Connection:
    """Open a database so that nothing is written: the WAL is read, and stays as it is. Raises sqlite3.Error.

    Without a WAL nobody has the file open, and it is read as one that can't change: else SQLite would leave files
    beside it. Whoever decides by what is read then sees to it that nobody opens it meanwhile.
    """
    assert not is_orphaned(path)
    can_change = path.with_name(path.name + "-wal").exists()
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'' if can_change else '&immutable=1'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    _register_functions(connection)
    return connection


def _register_functions(connection: sqlite3.Connection) -> None:
    """Give a connection what agent/sql/ uses beyond SQLite's own functions."""
    connection.create_function("line_checksum", 2, line_checksum, deterministic=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make or migrate the file: SQLite doesn't wait for a switch to WAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse_newer(path: Path) -> None:
    """Look at the version without writing: a connection that may write would merge a WAL when it closes."""
    try:
        with closing(connect_reading(path)) as connection:
            (version,) = connection.execute("pragma user_version").fetchone()
    except sqlite3.OperationalError:
        return  # being made, or in trouble that opening it to write names
    except sqlite3.Error as error:
        raise LocalFault(f"{path}: {error}. The file was left as it is.") from error
    if version > VERSION:
        raise SpoolRefused(
            f"{path} was written by a newer agent (spool version {version}, this one knows {VERSION}). "
            "Install that version again; nothing was changed."
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to our version."""
    try:
        (version,) = connection.execute("pragma user_version").fetchone()
        if version == 0:
            connection.execute("pragma auto_vacuum = incremental")
        connection.execute("pragma journal_mode = wal")
        # NORMAL loses acknowledged commits at a power cut, and integrity_check still says ok.
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma journal_size_limit = {WAL_BYTES_KEPT}")
        if version < VERSION:
            _upgrade(connection)
    except sqlite3.Error as error:
        raise LocalFault(f"{path}: {error}. The file was left as it is.") from error


def _upgrade(connection: sqlite3.Connection) -> None:
    """Take the steps that are missing. Seldom: so a resident daemon doesn't carry what this needs, 4 MB."""
    from sqlite_utils import Database, Migrations  # noqa: PLC0415

    migrations = Migrations("scout-spool")
    for version, name in enumerate(STEPS, start=1):
        migrations(name=name)(_step(name, version))
    migrations.apply(Database(connection))


def _step(name: str, version: int) -> Callable[["Database"], None]:
    def apply(database: "Database") -> None:
        for statement in script_of(name):
            database.conn.execute(statement)
        database.conn.execute(f"pragma user_version = {version}")

    return apply
