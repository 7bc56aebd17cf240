"""Days, hours and local times are those of the sale's store, before and after an operator sets its time zone."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import psycopg
import pytest
from landing import foreign, land, record
from psycopg_pool import ConnectionPool
from test_etl import only, sale
from test_etl_versions import arrive, check, silver

from server.etl import run_etl

LOCAL = "2026-01-20T23:30:00"
ZONE = "America/New_York"


def set_zone(connection: psycopg.Connection, store_id: str, zone: str) -> None:
    """As an operator does it."""
    connection.execute("insert into scout.dim_store (store_id) values (%s) on conflict do nothing", (store_id,))
    connection.execute("update scout.dim_store set time_zone = %s where store_id = %s", (zone, store_id))


def sold(connection: psycopg.Connection) -> dict[str, tuple[datetime, date, int]]:
    """By transaction, when it was sold: the moment, and day and hour where the store is."""
    query = "select transaction_id, sold_at, business_day, business_hour from scout.silver_transactions"
    return {name: (at, day, hour) for name, at, day, hour in connection.execute(query)}


def expected(zone: str, local: datetime) -> tuple[datetime, date, int]:
    """The same by Python's own zones."""
    at = local.replace(tzinfo=ZoneInfo(zone))
    return at, local.date(), local.hour


@pytest.mark.parametrize("is_first", [True, False])
def test_a_stores_zone_counts_whenever_it_is_set(
    pool: ConnectionPool, connection: psycopg.Connection, is_first: bool
) -> None:
    """Local times and days of that store's sales, in all their versions; other stores' stay as they are."""
    landed = [
        record(1, sale(1, store_id="9", timestamp=LOCAL)),
        record(2, sale(2, store_id="9", timestamp="2026-01-20T16:30:00Z")),
        record(3, sale(3, store_id="102", timestamp=LOCAL)),
        record(4, sale(4, transaction_id="t-1", store_id="9", timestamp=LOCAL, status="void")),
        foreign(sale(5, store_id="9", captured_at=LOCAL)),
    ]
    if is_first:
        set_zone(connection, "9", ZONE)
    arrive(pool, connection, *landed)
    if not is_first:
        set_zone(connection, "9", ZONE)
        run_etl(pool)

    local = datetime.fromisoformat(LOCAL)
    moments = [datetime(2026, 1, 20, hour, 30, tzinfo=UTC).astimezone(ZoneInfo(ZONE)) for hour in (16, 2)]
    zoned, foreigners = (at.replace(tzinfo=None) for at in moments)
    assert sold(connection) == {
        "t-1": expected(ZONE, local),
        "t-2": expected(ZONE, zoned),
        "t-3": expected("Asia/Manila", local),
        "t-5": expected(ZONE, foreigners),
    }
    assert only(connection, "select sold_at from scout.silver_transaction_versions") == expected(ZONE, local)[0]
    assert {
        at for (at,) in connection.execute("select event_at from scout.silver_edge_events where seq in (1, 4)")
    } == {expected(ZONE, local)[0]}
    check(pool)


def test_when_the_zone_is_set_makes_no_difference(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Before the sales arrive, or twice afterwards: silver says the same."""
    said = [sale(n, store_id="9", timestamp=f"2026-01-20T{n + 10}:30:00", captured_at=LOCAL) for n in range(1, 6)]
    landed = [*(record(n, one) for n, one in enumerate(said)), foreign(said[0]), foreign(said[1] | {"peso_value": 9})]
    landed += [record(9, sale(9, store_id="9", timestamp=LOCAL), clock="file")]
    arrive(pool, connection, *landed)
    set_zone(connection, "9", "UTC")
    run_etl(pool)
    set_zone(connection, "9", ZONE)
    run_etl(pool)
    after = silver(connection)

    for table in ("transactions", "transaction_versions", "edge_events"):
        connection.execute(f"truncate scout.silver_{table}".encode())
    connection.execute("insert into scout_bronze.loads (load_id, rows) overriding system value values (1, 8)")
    run_etl(pool)

    assert after == silver(connection)
    assert len(after["latest"]) == 6
    agreeing = (
        "select count(*) from scout.silver_transactions join scout.silver_edge_events using (raw_id, captured_at)"
    )
    assert only(connection, agreeing + " where clock = 'file'") == 1


def test_only_that_stores_rows_are_due_again(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """The cost is that store's sales, and none when the zone is what it was."""
    arrive(pool, connection, *(record(n, sale(n, store_id=str(n % 3))) for n in range(1, 7)))
    set_zone(connection, "1", "Asia/Manila")
    assert only(connection, "select count(*) from scout_bronze.loads") == 0

    set_zone(connection, "1", ZONE)

    assert connection.execute("select store_id, rows from scout_bronze.loads").fetchall() == [("1", 2)]
    read = {result.target: result.read for result in run_etl(pool)}
    assert read["scout.silver_transactions"] == 2


@pytest.mark.parametrize("zone", ["Asia/Manilla", "", "+08:00", "UTC+8x", "Asia/Manila'"])
def test_a_zone_that_is_none_is_refused(connection: psycopg.Connection, zone: str) -> None:
    """At once, by name, with how to find the right one; nothing is changed."""
    set_zone(connection, "9", ZONE)
    for statement in (
        "update scout.dim_store set time_zone = %s",
        "insert into scout.dim_store (store_id, time_zone) values ('10', %s)",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no time zone") as refused:
            connection.execute(statement.encode(), (zone,))
        assert "pg_timezone_names" in (refused.value.diag.message_hint or "")

    assert connection.execute("select store_id, time_zone from scout.dim_store").fetchall() == [("9", ZONE)]


def test_a_zone_that_is_set_while_the_etl_runs_is_not_missed(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """The update waits for a run that has read the zone already, and sees what it wrote."""
    land(connection, [record(1, sale(1, store_id="9", timestamp=LOCAL))])
    set_zone(connection, "9", "UTC")
    with psycopg.connect(database_url) as running, psycopg.connect(database_url, autocommit=True) as operator:
        running.execute("select * from scout_bronze.etl_to_production()")
        operator.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            set_zone(operator, "9", ZONE)
        running.commit()
        set_zone(operator, "9", ZONE)
    run_etl(pool)

    assert sold(connection) == {"t-1": expected(ZONE, datetime.fromisoformat(LOCAL))}
