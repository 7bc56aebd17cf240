"""The view that is kept: always readable, counted anew when it pays, and never in anybody's way."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from landing import land, record
from programs import CLEAN, DEADLINE_S, PROGRAM, scout_server, started
from psycopg_pool import ConnectionPool

from server.etl import run_etl
from server.gold import REFRESH_AFTER, refresh
from server.schema import migrate

AT_ONCE = timedelta(0)
WAITING = """
select
from pg_locks
join pg_database on pg_database.oid = pg_locks.database
where locktype = 'advisory' and not granted and datname = current_database()
"""
PAIRS = "select transactions_together from scout.gold_basket_patterns"

_numbers = count(1)


def sell(connection: psycopg.Connection, pool: ConnectionPool, times: int = 10) -> None:
    """Sell a and b together so many times."""
    items = [{"sku": "a", "total_price": 1}, {"sku": "b", "total_price": 1}]
    told = {"store_id": "1", "peso_value": 2, "items": items}
    numbers = [next(_numbers) for _ in range(times)]
    land(connection, [record(number, {"transaction_id": f"t-{number}", **told}) for number in numbers])
    run_etl(pool)


def until(is_so: Callable[[], Any]) -> None:
    """Poll."""
    pause, give_up_at = threading.Event(), monotonic() + DEADLINE_S
    while not is_so():
        assert monotonic() < give_up_at
        pause.wait(0.05)


def is_refreshed(connection: psycopg.Connection) -> bool:
    """Whether anybody refreshed it, and a and b are in it."""
    return bool(connection.execute("select from scout.refreshed").fetchall() and connection.execute(PAIRS).fetchall())


def test_it_is_filled_when_it_is_made_over_sales_that_are_there(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """An upgrade leaves no view that is empty, or that can't be read until somebody refreshes it."""
    sell(connection, pool)
    connection.execute("drop materialized view scout.gold_basket_patterns")
    connection.execute("update scout_edge.models set checksum = 'older' where name = 'gold/basket_patterns'")

    assert "gold/basket_patterns" in migrate(connection)

    assert connection.execute(PAIRS).fetchall() == [(10,)]


def test_applying_the_models_again_leaves_what_it_holds(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """An upgrade of anything before it neither empties it nor counts anew."""
    sell(connection, pool)
    refresh(pool)
    sell(connection, pool)
    connection.execute("update scout_edge.models set checksum = 'older'")

    assert {"silver/revenue_lines", "silver/sku_pairs", "gold/basket_patterns"} < set(migrate(connection))

    assert connection.execute(PAIRS).fetchall() == [(10,)]
    assert refresh(pool)
    assert connection.execute(PAIRS).fetchall() == [(20,)]


def test_it_is_due_when_it_is_old_and_something_came_since(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """An empty warehouse, a young refresh and one that has seen everything cost nothing."""
    assert refresh(pool, AT_ONCE) is None

    sell(connection, pool)
    done = refresh(pool, REFRESH_AFTER)
    assert done
    assert done.rows == 1
    assert refresh(pool, AT_ONCE) is None

    sell(connection, pool)
    assert refresh(pool, REFRESH_AFTER) is None
    assert connection.execute(PAIRS).fetchall() == [(10,)]
    connection.execute("update scout.refreshed set refreshed_at = refreshed_at - interval '25 hours'")
    assert refresh(pool, REFRESH_AFTER)
    assert connection.execute(PAIRS).fetchall() == [(20,)]

    connection.execute("update scout.refreshed set refreshed_at = refreshed_at - interval '25 hours'")
    assert refresh(pool, REFRESH_AFTER) is None


def test_neither_readers_nor_the_etl_wait_for_a_refresh(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """While one is under way, sales go on to gold, and the view shows what it held before."""
    sell(connection, pool)
    refresh(pool)
    sell(connection, pool)

    with psycopg.connect(database_url) as refreshing:
        refreshing.execute("select from scout.refresh_basket_patterns()")
        connection.execute("set lock_timeout = '10s'")
        assert connection.execute(PAIRS).fetchall() == [(10,)]
        sell(connection, pool)
        assert connection.execute("select transactions from scout.gold_executive_kpis").fetchone() == (30,)

    assert connection.execute(PAIRS).fetchall() == [(20,)]
    assert refresh(pool, AT_ONCE)  # what came meanwhile
    assert connection.execute(PAIRS).fetchall() == [(30,)]


def test_two_refreshes_go_one_after_the_other(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """And the second, where it only asks, finds that the first has done it."""
    sell(connection, pool)
    answers: list[Any] = []
    second = threading.Thread(target=lambda: answers.append(refresh(pool, AT_ONCE)))

    with psycopg.connect(database_url) as refreshing:
        assert refreshing.execute("select from scout.refresh_basket_patterns()").fetchall() == [()]
        second.start()
        until(lambda: connection.execute(WAITING).fetchall())
    second.join(DEADLINE_S)

    assert answers == [None]


def test_an_upgrade_waits_for_a_refresh_and_nobody_waits_for_both(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """It replaces what the refresh reads: had it begun, the ETL would wait, or the two for each other."""
    sell(connection, pool)
    applied: list[tuple[str, ...]] = []
    connection.execute("update scout_edge.models set checksum = 'older'")

    def upgrade() -> None:
        with psycopg.connect(database_url, autocommit=True) as upgrading:
            applied.append(migrate(upgrading))

    upgrading = threading.Thread(target=upgrade)
    with psycopg.connect(database_url) as refreshing:
        refreshing.execute("select from scout.refresh_basket_patterns()")
        upgrading.start()
        until(lambda: connection.execute(WAITING).fetchall())
        sell(connection, pool)
        assert connection.execute("select transactions from scout.gold_executive_kpis").fetchone() == (20,)
        assert applied == []
    upgrading.join(DEADLINE_S)

    assert "gold/basket_patterns" in applied[0]
    assert connection.execute(PAIRS).fetchall() == [(10,)]


def test_a_failed_refresh_leaves_what_was_there(
    pool: ConnectionPool, connection: psycopg.Connection, database_url: str
) -> None:
    """Broken off at any moment, nothing of it is seen, and it is still due."""
    sell(connection, pool)
    refresh(pool)
    sell(connection, pool)
    before = connection.execute("select * from scout.refreshed").fetchall()

    with psycopg.connect(database_url) as refreshing:
        refreshing.execute("select from scout.refresh_basket_patterns()")
        refreshing.rollback()

    assert connection.execute(PAIRS).fetchall() == [(10,)]
    assert connection.execute("select * from scout.refreshed").fetchall() == before
    assert refresh(pool, AT_ONCE)


@contextmanager
def watching(database_url: str) -> Iterator[None]:
    """Run `etl --watch`."""
    arguments = [*PROGRAM, "etl", "--watch", "--database-url", database_url]
    with subprocess.Popen(arguments, env=CLEAN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said


def test_whoever_runs_the_etl_refreshes_it(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """`etl --watch` by itself, without anybody asking."""
    sell(connection, pool)

    with watching(database_url):
        until(lambda: is_refreshed(connection))


def test_serving_refreshes_it(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """`serve` beside an ETL that cron runs."""
    sell(connection, pool)
    given = ("--database-url", database_url, "--bucket", f"file://{tmp_path}")

    with started("serve", tmp_path, *given, SUPABASE_JWT_SECRET="x" * 40):
        until(lambda: is_refreshed(connection))


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_says_what_it_did(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection, as_json: bool
) -> None:
    """Rows and time."""
    sell(connection, pool)

    done = scout_server("gold", "refresh", "--database-url", database_url, *(["--json"] if as_json else []))

    assert done.returncode == 0, done.stderr
    if as_json:
        assert json.loads(done.stdout)["rows"] == 1
    else:
        assert done.stdout.startswith("scout.gold_basket_patterns: 1 pairs, counted in ")
