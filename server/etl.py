"""Bronze to silver: calls the database's own ETL until nothing is due, and runs the checks.

May be relied on:
- Safe at any time and any number at once: the database lets one run at a time, and each call is one
  transaction. A crash leaves a load either moved whole or still due.
- A load that can't be moved is marked, logged once per try, and never holds up the others.
- A check is a query in `sql/checks/` that returns no rows while all is well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog
import tenacity
from psycopg_pool import ConnectionPool

from server.database import SQL, named_queries, transact

CALLS_MAX = 50
"""Calls of one run, of some 20,000 rows each: under a steady flow a run still ends, and its caller can stop."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What a run did to one table. `refused` counts fields that could not be typed: their rows are there."""

    target: str
    read: int
    written: int
    already_there: int
    refused: int
    lag_s: float  # how long the oldest load that is left has waited; 0 when none is


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How many rows a check found that contradict it; 0 is right."""

    check: str
    contradictions: int


def run_etl(pool: ConnectionPool, sleep: Callable[[float], None] = tenacity.nap.sleep) -> list[TargetResult]:
    """Move and type every load that is due; return what was done, one result per target.

    Ends early after CALLS_MAX calls. Begins a call again when PostgreSQL says so (40P01, 40001).
    """
    results: dict[str, TargetResult] = {}
    for _ in range(CALLS_MAX):
        moved, is_more_due = transact(pool, _move, sleep)
        for result in moved:
            results[result.target] = _joined(results.get(result.target), result)
        if not is_more_due:
            break
    done = list(results.values())
    if any(result.read for result in done):
        log.info("loads_moved", **{result.target: result.written for result in done}, lag_s=done[0].lag_s)
    return done


def rebuild_gold(pool: ConnectionPool, sleep: Callable[[float], None] = tenacity.nap.sleep) -> list[TargetResult]:
    """Make the tables of gold anew from silver, in one transaction; return what was done, one result per target."""
    query = named_queries("etl")["rebuild_gold"]
    done = transact(pool, lambda connection: connection.execute(query).fetchall(), sleep)
    results = [TargetResult(*row) for row in done]
    log.info("gold_rebuilt", **{result.target: result.written for result in results})
    return results


def type_again(pool: ConnectionPool) -> int:
    """Make every row of production due again, say after the table of dialects changed; return how many rows."""
    with pool.connection() as connection:
        (rows,) = connection.execute(named_queries("etl")["type_again"]).fetchone() or (0,)
    return int(rows)


def run_checks(pool: ConnectionPool, folder: Path = SQL / "checks") -> list[CheckResult]:
    """Run every check; return how many rows contradict each, by name of its file."""
    with pool.connection() as connection:
        return [
            CheckResult(path.stem, len(connection.execute(path.read_bytes()).fetchall()))
            for path in sorted(folder.glob("*.sql"))
        ]


def _move(connection: psycopg.Connection) -> tuple[list[TargetResult], bool]:
    queries = named_queries("etl")
    moved = [TargetResult(*row) for row in connection.execute(queries["move_loads"])]
    for load_id, rows, error in connection.execute(queries["failed_loads"]):
        log.warning("load_failed", load_id=load_id, rows=rows, error=error)
    is_more_due = connection.execute(queries["has_due_loads"]).fetchone() == (True,)
    return moved, is_more_due


def _joined(before: TargetResult | None, result: TargetResult) -> TargetResult:
    if before is None:
        return result
    return TargetResult(
        result.target,
        before.read + result.read,
        before.written + result.written,
        before.already_there + result.already_there,
        before.refused + result.refused,
        result.lag_s,
    )
