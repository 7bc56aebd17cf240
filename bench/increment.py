"""What 10,000 new sales cost from landing to gold, beside 100,000 sales and beside 2,000,000.

    python bench/increment.py

Three warehouses lie on one PostgreSQL: a small one, one with the same shops for twenty times as long, and one with
twenty times the shops. They are filled by the ETL itself, load by load. Then the same number of sales follows in each
in turn, so that what else the machine does meets all. Prints the times, what was scanned, and the rows; fails when a
large one costs more than RATIO_MAX times the small one, or when a table of more than BIG_ROWS rows was read from end
to end.

    SCOUT_BENCH_SHAPES   which warehouses, of small,days,shops (all)
"""

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from server.data_directory import DataDirectory
from server.database import open_pool
from server.embedded import EmbeddedPostgres
from server.etl import run_checks, run_etl
from server.schema import migrate

INCREMENT_ROWS = 10_000
RUNS = 3
RATIO_MAX = 1.5
BIG_ROWS = 100_000
VACUUM_ROWS = 200_000
LAND = (Path(__file__).parent / "increment.sql").read_text()
SCANS = """
select relid::regclass::text, seq_scan, coalesce(idx_scan, 0), n_live_tup
from pg_stat_user_tables
where schemaname in ('scout', 'scout_bronze', 'scout_gold')
order by 1
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """A warehouse: so many shops, each with 40 sales a day for so many days."""

    shops: int
    days: int

    @property
    def rows(self) -> int:
        """Its sales."""
        return self.shops * self.days * 40


SHAPES = {"small": Shape(100, 25), "days": Shape(100, 500), "shops": Shape(2_000, 25)}
Scans = dict[str, tuple[int, int, int]]


def main() -> int:
    """Measure and print; the exit status says whether the cost stays."""
    shapes = {name: SHAPES[name] for name in os.environ.get("SCOUT_BENCH_SHAPES", "small,days,shops").split(",")}
    with tempfile.TemporaryDirectory(prefix="scout-bench-") as folder, ExitStack() as house:
        home = Path(folder)
        home.chmod(0o711)
        data = house.enter_context(DataDirectory(home / "data"))
        postgres = house.enter_context(EmbeddedPostgres(data))
        pools = {name: house.enter_context(open_pool(_filled(postgres.dsn, name))) for name in shapes}
        before = {name: _scans(pool) for name, pool in pools.items()}
        times_s: dict[str, list[float]] = {name: [] for name in shapes}
        for run in range(RUNS):
            for name, shape in shapes.items():
                times_s[name].append(_increment_s(pools[name], shape, run))
        big = [table for name, pool in pools.items() for table in _say_scans(name, before[name], _scans(pool))]
        wrong = [result.check for result in run_checks(pools["small"]) if result.contradictions]
    medians = {name: statistics.median(times) for name, times in times_s.items()}
    for name, shape in shapes.items():
        print(
            f"{INCREMENT_ROWS:,} sales beside {shape.rows:>9,} ({shape.shops:,} shops, {shape.days} days): "
            f"{medians[name]:.2f} s ({', '.join(f'{time:.2f}' for time in times_s[name])})"
        )
    ratio = max(medians.values()) / medians["small"]
    print(f"ratio {ratio:.2f}, at most {RATIO_MAX}; big tables read from end to end: {', '.join(big) or 'none'}")
    print(f"checks that fail: {', '.join(wrong) or 'none'}")
    return int(ratio > RATIO_MAX or bool(big) or bool(wrong))


def _filled(dsn: str, name: str) -> str:
    shape = SHAPES[name]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database bench_{name}".encode())
    url = make_conninfo(dsn, dbname=f"bench_{name}")
    with psycopg.connect(url, autocommit=True) as connection, open_pool(url) as pool:
        migrate(connection)
        began = perf_counter()
        _tell_gold(connection, "disable")
        for first in range(0, shape.rows, INCREMENT_ROWS):
            _land(connection, shape, first)
            if first % VACUUM_ROWS == VACUUM_ROWS - INCREMENT_ROWS:
                run_etl(pool)
                connection.execute("vacuum analyze")
        run_etl(pool)
        filled = perf_counter()
        _tell_gold(connection, "enable")
        connection.execute("select * from scout_gold.rebuild()")
        rebuilt = perf_counter()
        connection.execute("vacuum analyze")
    print(
        f"{name}: {shape.rows:,} sales to silver {filled - began:.0f} s, gold's tables {rebuilt - filled:.0f} s",
        flush=True,
    )
    return url


def _tell_gold(connection: psycopg.Connection, whether: str) -> None:
    """Whether silver tells gold what changes: while much comes in, one rebuild at its end costs less."""
    for table in ("silver_transactions", "silver_transaction_items"):
        connection.execute(f"alter table scout.{table} {whether} trigger user".encode())


def _land(connection: psycopg.Connection, shape: Shape, first: int) -> None:
    values = {"first": first, "rows": INCREMENT_ROWS, "shops": shape.shops}
    with connection.transaction():
        connection.execute(LAND.encode(), values)


def _increment_s(pool: ConnectionPool, shape: Shape, run: int) -> float:
    with pool.connection() as connection:
        _land(connection, shape, shape.rows + run * INCREMENT_ROWS)
    began = perf_counter()
    results = run_etl(pool)
    took_s = perf_counter() - began
    written = {result.target: result.written for result in results}
    assert written["scout.silver_transactions"] == INCREMENT_ROWS, written
    assert all(rows for target, rows in written.items() if target.startswith("scout_gold.")), written
    return took_s


def _scans(pool: ConnectionPool) -> Scans:
    with pool.connection() as connection:
        connection.execute("select pg_stat_force_next_flush()")
    with pool.connection() as connection:
        return {table: counts for table, *counts in connection.execute(SCANS)}


def _say_scans(name: str, before: Scans, after: Scans) -> list[str]:
    """Print what the increments scanned; return the big tables that they read from end to end."""
    print(f"{name + ':':<38}{'rows':>10} {'seq scans':>10} {'index scans':>12}")
    big = []
    for table, (all_sequential, all_indexed, rows) in after.items():
        sequential, indexed = all_sequential - before[table][0], all_indexed - before[table][1]
        if sequential or indexed:
            print(f"  {table:<36}{rows:>10,} {sequential:>10,} {indexed:>12,}")
        if sequential and rows > BIG_ROWS:
            big.append(f"{name}: {table}")
    return big


if __name__ == "__main__":
    sys.exit(main())
