"""Removing old rows from the landing table, once production has them: `scout-server prune`.

    older than N days ─▶ in both production tables, no load left? ─▶ removed, and noted as retired, in one transaction

May be relied on:
- A row goes only in the transaction that notes it: after a crash at any statement each row is there or retired, and
  another run goes on. Runs at once take turns.
- While any of what would go waits for the ETL, or failed there, nothing goes. What production lacks stays, counted.
- A late copy of what went is a duplicate on every path; another sale at its number, a fork, lands (queries/bronze.sql).
- Loaders wait for the removal of ROWS_MAX rows, a fraction of a second, and WAIT_MS_MAX before it at most.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import structlog
import tenacity
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from server.database import named_queries, transact
from server.errors import ServerError

DAYS_SPARE = 7
"""On top of the days for which devices keep what is settled, and may be asked for it again: so long what production or
silver lost comes back from the landing table by itself, and somebody has time to see what doesn't."""

ROWS_MAX = 2_000
"""Removed by one transaction: 0.05 s for which loaders wait; where every row is of another epoch, 0.2 s."""

WAIT_MS_MAX = 500
"""For loaders that are in the middle of a transaction: those behind wait as long. Then they go first."""

TRIES_MAX = 60
"""Of one batch, a second apart. Loaders that let nobody in for a minute are at work on something large."""

_QUERIES = named_queries("prune")
_BEGINNING = (datetime.min.replace(tzinfo=UTC), 0)

log = structlog.get_logger()


class NotPrunable(ServerError):
    """Nothing was removed."""


class LoadersBusy(ServerError):
    """Loaders let nobody in."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is old enough to go."""

    before: datetime  # of these, everything that bronze received earlier
    rows: int
    records: int  # of the rows; the others are lines of others
    devices: int
    oldest_at: datetime | None
    newest_at: datetime | None
    unprocessed: int  # wait for the ETL
    failed: int  # of those: the ETL tried and could not
    lacking: int  # were moved, and are not in production any more: these stay


def due(connection: psycopg.Connection, days: int) -> Due:
    """Look what is older than so many days, and change nothing.

    Raises NotPrunable where these are too few days, or while any of the rows waits for the ETL.
    """
    (days_min,) = connection.execute(_QUERIES["days_min"], {"days_spare": DAYS_SPARE}).fetchone() or (0,)
    if days < days_min:
        raise NotPrunable(
            f"{days} days are too few, {days_min} are the least: devices keep what is settled for "
            f"{days_min - DAYS_SPARE} days and may be asked for it again, and {DAYS_SPARE} more are for noticing what "
            "production lacks. Nothing was removed."
        )
    with connection.cursor(row_factory=class_row(Due)) as cursor:
        found = cursor.execute(_QUERIES["due"], {"days": days}).fetchone()
    assert found
    if found.unprocessed:
        raise NotPrunable(
            f"of the rows older than {days} days {found.unprocessed:,} wait for the ETL, and {found.failed:,} of them "
            "failed there: nothing was removed. Run 'scout-server etl'; 'scout-server status' shows whose rows go on "
            "waiting, and why."
        )
    return found


def prune(
    pool: ConnectionPool,
    found: Due,
    *,
    rows_max: int = ROWS_MAX,
    tries_max: int = TRIES_MAX,
    sleep: Callable[[float], None] = tenacity.nap.sleep,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Remove what was found due, `rows_max` rows a transaction; return how many.

    Raises LoadersBusy when no turn comes in `tries_max` tries. What was removed until then stays removed.
    """
    removed = 0
    for raw_ids in _batches(pool, found.before, rows_max):
        removed += _remove(pool, raw_ids, tries_max, sleep)
        progress(removed, found.rows)
    log.info("rows_pruned", rows=removed, ingested_before=found.before.isoformat())
    return removed


def _batches(pool: ConnectionPool, before: datetime, rows_max: int) -> Iterator[list[int]]:
    """Yield the numbers of what is old enough, the oldest first; each looks on from where the one before ended."""
    from_at, from_raw_id = _BEGINNING
    while True:
        values = {"from_at": from_at, "from_raw_id": from_raw_id, "before": before, "rows_max": rows_max}
        with pool.connection() as connection:
            row = connection.execute(_QUERIES["oldest"], values).fetchone()
        if row is None:
            return
        raw_ids, from_at = row
        from_raw_id = raw_ids[-1]
        yield raw_ids


def _remove(pool: ConnectionPool, raw_ids: list[int], tries_max: int, sleep: Callable[[float], None]) -> int:
    def work(connection: psycopg.Connection) -> int:
        connection.execute(_QUERIES["wait_at_most"], {"ms": str(WAIT_MS_MAX)})
        connection.execute(_QUERIES["keep_loaders_out"])
        row = connection.execute(_QUERIES["remove"], {"raw_id": raw_ids}).fetchone()
        assert row
        return int(row[0])

    for _ in range(tries_max):
        with suppress(psycopg.errors.LockNotAvailable):
            return transact(pool, work)
        sleep(1.0)
    raise LoadersBusy(
        "loaders let nobody at the landing table: run it again when less is loaded. What was removed until now stays "
        "removed."
    )
