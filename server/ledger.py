"""The ledger as an operator reads it: what became of each object and post, and loading one once more.

May be relied on: loading again takes nothing away. Lines that bronze has are duplicates, those that are missing land
once more; an object that can't be read any longer stays loaded, for its lines are in bronze.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from server.bucket import Bucket, BucketFault, InvalidKey
from server.database import named_queries, transact
from server.errors import ServerError
from server.expanding import Unreadable
from server.loader import LoadSummary, check_object, load_keys

_QUERIES = named_queries("ledger")


class UnknownFile(ServerError):
    """The ledger has no such file."""


class NotLoadable(ServerError):
    """This file can't be loaded again."""


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """One row of the ledger. Counts are of lines; null until it was loaded."""

    file_id: int
    bucket: str
    key: str
    version: str
    device_id: str
    state: str
    found_at: datetime
    loaded_at: datetime | None
    bytes: int | None
    lines: int | None
    accepted: int | None
    duplicates: int | None
    rejected: int | None
    reason: str | None
    tries: int
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A line of a file that is held in quarantine, and what became of it."""

    quarantine_id: int
    line: int
    reason: str
    outcome: str | None


def list_files(
    connection: psycopg.Connection, *, device_id: str | None, state: str | None, day: date | None, limit: int
) -> list[LedgerFile]:
    """Return at most `limit` files, the newest first: of a device, a state, the folder of a day, or all."""
    values = {"device_id": device_id, "state": state, "day": day and str(day), "limit": limit}
    with connection.cursor(row_factory=class_row(LedgerFile)) as cursor:
        return cursor.execute(_QUERIES["list"], values).fetchall()


def find_files(connection: psycopg.Connection, name: str) -> list[LedgerFile]:
    """Return the file of this number, or the versions of the object of this key. Raises UnknownFile."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
    with connection.cursor(row_factory=class_row(LedgerFile)) as cursor:
        found = cursor.execute(_QUERIES["find"], {"file_id": number, "key": name}).fetchall()
    if not found:
        raise UnknownFile(f"the ledger has no file {name!r}: 'scout-server files list' shows numbers and keys")
    return found


def rows_held(connection: psycopg.Connection, file: LedgerFile) -> int:
    """How many rows bronze holds now of what this file brought; of a batch, of all its run, whoever brought them."""
    row = connection.execute(_QUERIES["rows_held"], {"file_id": file.file_id}).fetchone()
    assert row
    return int(row[0])


def lines_held(connection: psycopg.Connection, file: LedgerFile, limit: int) -> list[HeldLine]:
    """The first `limit` lines of this file that are held in quarantine."""
    with connection.cursor(row_factory=class_row(HeldLine)) as cursor:
        return cursor.execute(_QUERIES["lines_held"], {"file_id": file.file_id, "limit": limit}).fetchall()


def reload(pool: ConnectionPool, bucket: Bucket, names: Sequence[str]) -> LoadSummary:
    """Load these files' objects once more, named by number or key.

    Raises UnknownFile or NotLoadable, before anything is changed, when one of them can't be loaded; BucketFault and
    psycopg.OperationalError as the loader does.
    """
    with pool.connection() as connection:
        files = [file for name in names for file in find_files(connection, name)]
    for file in files:
        _refuse_unless_loadable(bucket, file)
    values = {"file_id": [file.file_id for file in files]}
    transact(pool, lambda connection: connection.execute(_QUERIES["make_due"], values))
    return load_keys(pool, bucket, list(dict.fromkeys(file.key for file in files)))


def _refuse_unless_loadable(bucket: Bucket, file: LedgerFile) -> None:
    which = f"file {file.file_id} ({file.key})"
    if file.bucket != bucket.name:
        raise NotLoadable(
            f"{which} is in {file.bucket!r}, and not in the bucket {bucket.name!r}: what was posted has no object to "
            "load from, and another bucket is named by --bucket."
        )
    try:
        if bucket.version_of(file.key) is None:
            raise NotLoadable(f"{which} is gone from the bucket. What it brought is in bronze; see 'files show'.")
        if file.state == "loaded":
            check_object(bucket, file.key)
    except (InvalidKey, Unreadable) as problem:
        raise NotLoadable(f"{which} can't be read any more: {problem}. What it brought stays in bronze.") from problem
    except OSError as error:
        raise BucketFault(f"the bucket can't be read: {error.strerror}.") from error
