"""Times of sales that were taken while a device's clock was wrong: measured by heartbeats, corrected in silver."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import psycopg
import pytest
from landing import Landed, land
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool
from test_etl import ETL, only, sale
from test_heartbeat import as_json, call, report

from server import tokens
from server.etl import run_checks, run_etl
from wire.heartbeat import BOOTS_MAX, BootState
from wire.record import format_instant

ZERO_AT = datetime(2026, 1, 20, 1, 0, tzinfo=UTC)
"""When the boots of these tests really began: nine o'clock in Manila."""

BOOT = "9b1f6a2e-0c1d-4e57-9d9a-0d8c5a0f7f11"
WRONG_CLOCKS = {year: datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 2038, 2106)}
UNTIMED = {"timestamp": None, "store_id": "102"}


@pytest.fixture(autouse=True)
def devices(connection: psycopg.Connection) -> None:
    """A database that knows two devices."""
    tokens.add_device(connection, "pi-1")
    tokens.add_device(connection, "pi-2")


def unsynced(seq: int, said: dict[str, Any], *, mono_s: float = 60, year: int = 1970, **fields: Any) -> Landed:
    """A record taken `mono_s` after the boot by a clock that was set to the year."""
    own: dict[str, Any] = {"clock": "unsynced", "boot": BOOT, "mono_ms": round(mono_s * 1000)}
    captured_at = WRONG_CLOCKS[year] + timedelta(seconds=mono_s)
    return Landed(json.dumps(said), seq=seq, captured_at=captured_at, **own | fields)


def hear(
    connection: psycopg.Connection,
    zero_at: datetime = ZERO_AT,
    error_ms: int = 40,
    *,
    boot: str = BOOT,
    device_id: str = "pi-1",
) -> None:
    """Let a device call home with one measured boot."""
    body = json.loads(report().to_json()) | {"boots": [boot_state(zero_at, error_ms, boot)]}
    call(connection, body, sub=device_id)


def boot_state(zero_at: datetime = ZERO_AT, error_ms: int = 40, boot: str = BOOT) -> dict[str, Any]:
    """A boot as it stands in a report."""
    return {"boot": boot, "zero_at": format_instant(zero_at), "error_ms": error_ms}


def captured(connection: psycopg.Connection) -> dict[int, datetime]:
    """By seq, when silver says that a sale was captured; both silver tables agree."""
    query = (
        "select sale.seq, sale.captured_at, event.captured_at"
        " from scout.silver_transactions as sale join scout.silver_edge_events as event using (raw_id)"
    )
    found = connection.execute(query).fetchall()
    assert found
    assert all(one == other for _, one, other in found)
    return {seq: at for seq, at, _ in found}


def revenue(connection: psycopg.Connection) -> dict[date, Decimal]:
    """Gold's revenue by day."""
    return dict(connection.execute("select business_day, revenue from scout.gold_daily_revenue").fetchall())


@pytest.mark.parametrize("heard_first", [True, False])
@pytest.mark.parametrize("year", WRONG_CLOCKS)
def test_a_sale_taken_with_a_clock_decades_off_gets_its_time_in_silver(
    pool: ConnectionPool, connection: psycopg.Connection, year: int, heard_first: bool
) -> None:
    """Whether the measurement came before the sale or after it; bronze keeps what the device said."""
    rows = [unsynced(1, sale(1), mono_s=60, year=year), unsynced(2, sale(2), mono_s=90.5, year=year)]
    if heard_first:
        hear(connection)
    land(connection, rows)
    run_etl(pool)
    if not heard_first:
        assert captured(connection)[1] == rows[0].captured_at
        hear(connection)
        run_etl(pool)

    assert captured(connection) == {1: ZERO_AT + timedelta(seconds=60), 2: ZERO_AT + timedelta(seconds=90.5)}
    for table in ("scout_bronze.transactions_raw", "scout.bronze_transactions_raw", "scout.bronze_edge_raw"):
        said = connection.execute(SQL("select captured_at from {} order by seq").format(Identifier(*table.split("."))))
        assert [at for (at,) in said] == [row.captured_at for row in rows]
    assert {result.contradictions for result in run_checks(pool)} == {0}


def test_a_sale_without_a_time_of_its_own_moves_to_its_day_in_gold(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Both days are right afterwards: the one it left and the one it came to."""
    land(connection, [unsynced(1, sale(5, **UNTIMED)), unsynced(2, sale(7))])
    run_etl(pool)
    before = revenue(connection)
    hear(connection)
    run_etl(pool)

    assert before == {date(1970, 1, 1): 5, date(2026, 1, 20): 7}
    assert revenue(connection) == {date(2026, 1, 20): 12}
    assert only(connection, "select business_hour from scout.silver_transactions where seq = 1") == 9
    assert {result.contradictions for result in run_checks(pool)} == {0}


def test_sales_after_the_clock_was_synchronised_are_trusted(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Of one boot, those before are corrected and those after are not."""
    late = datetime(2026, 1, 20, 5, 0, 0, 123_000, tzinfo=UTC)
    trusted = Landed(json.dumps(sale(2)), seq=2, captured_at=late, boot=BOOT, mono_ms=14_400_000)
    land(connection, [unsynced(1, sale(1)), trusted])
    hear(connection)
    run_etl(pool)

    assert captured(connection) == {1: ZERO_AT + timedelta(seconds=60), 2: late}


def test_a_boot_that_was_not_measured_keeps_what_the_device_said(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Nothing is guessed, and nothing is held up."""
    row = unsynced(1, sale(1), boot="another-boot")
    land(connection, [row])
    hear(connection)
    run_etl(pool)

    assert captured(connection) == {1: row.captured_at}


def test_a_lying_device_moves_no_sale_but_its_own(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Another device's boot of the same name is another boot, and absurd numbers fail no load."""
    mine = unsynced(1, sale(1), device_id="pi-1")
    absurd = unsynced(2, sale(2), device_id="pi-2", mono_ms=2**62)
    theirs = unsynced(3, sale(3), device_id="pi-2")
    land(connection, [mine, absurd, theirs])
    hear(connection, datetime(2001, 1, 1, tzinfo=UTC), device_id="pi-2")
    run_etl(pool)

    assert captured(connection) == {
        1: mine.captured_at,
        2: absurd.captured_at,
        3: datetime(2001, 1, 1, 0, 1, tzinfo=UTC),
    }
    assert only(connection, "select count(*) from scout_bronze.loads") == 0


def pending(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The boots that are due again."""
    return connection.execute("select device_id, boot, rows from scout_bronze.loads where boot is not null").fetchall()


def test_a_surer_measurement_makes_only_that_boots_rows_due_again(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """The same again, a worse one or one hardly better costs nothing."""
    other = unsynced(3, sale(3), boot="another-boot")
    land(connection, [unsynced(1, sale(1)), unsynced(2, sale(2)), other])
    hear(connection)
    assert pending(connection) == [("pi-1", BOOT, 2)]
    run_etl(pool)
    assert pending(connection) == []
    shift = timedelta(milliseconds=30)
    for error_ms in (40, 41, 39, 20):
        hear(connection, ZERO_AT + shift, error_ms)
    assert pending(connection) == []
    hear(connection, ZERO_AT + shift, 19)
    assert pending(connection) == [("pi-1", BOOT, 2)]
    read = {result.target: result.read for result in run_etl(pool)}

    assert read["scout.silver_transactions"] == 2
    assert read["scout.bronze_transactions_raw"] == 0
    assert captured(connection)[1] == ZERO_AT + timedelta(seconds=60) + shift
    assert captured(connection)[3] == other.captured_at


def test_a_measurement_by_a_server_clock_that_was_wrong_is_replaced(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """However sure the first one was."""
    land(connection, [unsynced(1, sale(1))])
    hear(connection, ZERO_AT - timedelta(days=30), error_ms=1)
    run_etl(pool)
    hear(connection, error_ms=500)
    run_etl(pool)

    assert captured(connection) == {1: ZERO_AT + timedelta(seconds=60)}


def test_a_measurement_from_the_future_is_left_out_and_the_report_is_answered(
    connection: psycopg.Connection,
) -> None:
    """Receipts must not hang on it."""
    land(connection, [unsynced(1, sale(1))])
    for zero_at in (datetime(2500, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)):
        hear(connection, zero_at)

    assert connection.execute("select * from scout_edge.boots").fetchall() == []


def versions(number: int, boot: str) -> dict[str, Landed]:
    """Three versions of one sale, in truth of 9:01, 9:02 and 9:03; the first by a clock in 2106, one in 1970."""
    texts = {
        name: sale(number, peso_value=pesos, items=[{"sku": sku} for sku in skus])
        for name, pesos, skus in (("first", 1, "a"), ("second", 2, "b"), ("third", 3, "cd"))
    }
    third_at = ZERO_AT + timedelta(seconds=180)
    return {
        "first": unsynced(10 * number + 1, texts["first"], mono_s=60, year=2106, boot=boot),
        "second": unsynced(10 * number + 2, texts["second"], mono_s=120, year=1970, boot=boot),
        "third": Landed(json.dumps(texts["third"]), seq=10 * number + 3, captured_at=third_at),
    }


@pytest.mark.parametrize("together", [True, False])
def test_the_latest_version_is_the_latest_by_corrected_time_in_any_order(
    pool: ConnectionPool, connection: psycopg.Connection, together: bool
) -> None:
    """Whatever arrived when, and whichever version a wrong clock had made the latest before; items follow."""
    orders = list(permutations(["first", "second", "third", "heard"]))
    for number, steps in enumerate(orders):
        boot = f"boot-{number}"
        for step in steps:
            if step == "heard":
                hear(connection, boot=boot)
            else:
                land(connection, [versions(number, boot)[step]])
            if not together:
                run_etl(pool)
    run_etl(pool)

    query = (
        "select sale.seq, string_agg(item.sku, '' order by line_number) from scout.silver_transactions as sale"
        " join scout.silver_transaction_items as item using (source_id, transaction_key) group by sale.seq order by 1"
    )
    assert connection.execute(query).fetchall() == [(10 * number + 3, "cd") for number in range(24)]
    assert {result.contradictions for result in run_checks(pool)} == {0}


def test_a_version_that_a_wrong_clock_had_put_first_gives_way_to_one_without_any_new_row(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Also for ids of any length, of which the index holds the beginning."""
    long = "x" * 10_000
    versions = [unsynced(1, sale(1, transaction_id=long), mono_s=300), unsynced(2, sale(2, transaction_id=long + "y"))]
    early = unsynced(3, sale(3, transaction_id=long), mono_s=60, year=2106)
    land(connection, [*versions, early])
    run_etl(pool)
    before = {seq for (seq,) in connection.execute("select seq from scout.silver_transactions")}
    hear(connection)
    run_etl(pool)

    assert before == {2, 3}
    assert {seq for (seq,) in connection.execute("select seq from scout.silver_transactions")} == {1, 2}


def test_a_measurement_that_comes_while_the_etl_runs_is_not_missed_and_does_not_wait(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """The run that is under way types the rows as before; they are due again, and the device is answered."""
    land(connection, [unsynced(1, sale(1))])
    with psycopg.connect(database_url, autocommit=True) as other, other.transaction():
        other.execute(ETL)
        connection.execute("set statement_timeout = '10s'")
        hear(connection)
        hear(connection, ZERO_AT + timedelta(milliseconds=1), 5)
    run_etl(pool)

    assert captured(connection) == {1: ZERO_AT + timedelta(seconds=60, milliseconds=1)}


def test_rows_removed_from_the_landing_table_are_corrected_too(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Raw rows may be pruned once they are in production."""
    land(connection, [unsynced(1, sale(1))])
    run_etl(pool)
    connection.execute("delete from scout_bronze.transactions_raw")
    hear(connection)
    run_etl(pool)

    assert captured(connection) == {1: ZERO_AT + timedelta(seconds=60)}


def test_a_boots_rows_are_found_by_their_index(connection: psycopg.Connection) -> None:
    """The cost follows the boot, not the table."""
    land(connection, [unsynced(seq, sale(seq), boot=f"boot-{seq % 100}") for seq in range(1, 4001)])
    connection.execute(ETL)
    query = SQL("explain select raw_id from {} where device_id = 'pi-1' and boot = 'boot-7' and clock = 'unsynced'")
    for table in (Identifier("scout_bronze", "transactions_raw"), Identifier("scout", "bronze_transactions_raw")):
        connection.execute(SQL("analyze {}").format(table))
        plan = str(connection.execute(query.format(table)).fetchall())
        assert "transactions_raw_boot" in plan


# What a report may say of boots


MALFORMED = [
    {},
    "text",
    5,
    ["text"],
    [None],
    [[]],
    [{}],
    [boot_state() | {"boot": ""}],
    [boot_state() | {"boot": "x" * 65}],
    [boot_state() | {"boot": "a/b"}],
    [boot_state() | {"boot": None}],
    [boot_state() | {"zero_at": "now"}],
    [boot_state() | {"zero_at": "2026-02-30T00:00:00Z"}],
    [boot_state() | {"zero_at": "2026-01-20 01:00:00"}],
    [boot_state() | {"zero_at": 5}],
    [boot_state() | {"error_ms": -1}],
    [boot_state() | {"error_ms": 1.5}],
    [boot_state() | {"error_ms": "40"}],
    [boot_state() | {"error_ms": 10**9}],
    [boot_state() | {"error_ms": None}],
    [boot_state(boot="good"), boot_state() | {"zero_at": ""}],
]


def test_a_malformed_boot_is_refused_and_nothing_of_the_report_is_kept(connection: psycopg.Connection) -> None:
    """As every other malformed part is."""
    for boots in MALFORMED:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="malformed boot"):
            call(connection, as_json(report(), boots=boots), sub="pi-1")

    assert connection.execute("select * from scout_edge.boots").fetchall() == []
    assert connection.execute("select * from scout_edge.heartbeats").fetchall() == []
    call(connection, as_json(report(), boots=[boot_state()]), sub="pi-1")


def test_no_more_boots_than_a_report_may_name_are_taken_in(connection: psycopg.Connection) -> None:
    """The cost of a heartbeat stays bounded."""
    boots = [boot_state(boot=f"boot-{number:03d}") for number in range(BOOTS_MAX + 20)]
    call(connection, as_json(report(), boots=boots), sub="pi-1")

    assert only(connection, "select count(*) from scout_edge.boots") == BOOTS_MAX


def test_a_report_as_an_agent_writes_it_is_taken_in(connection: psycopg.Connection) -> None:
    """The two sides mean the same by every field; what a newer agent adds is ignored."""
    written = replace(report(), boots=(BootState(BOOT, format_instant(ZERO_AT), 40),))
    body = as_json(written)
    body["boots"][0]["of_tomorrow"] = [1]
    call(connection, body, sub="pi-1")

    assert connection.execute("select boot, zero_at, error_ms from scout_edge.boots").fetchall() == [
        (BOOT, ZERO_AT, 40)
    ]


def test_an_agent_that_knows_nothing_of_boots_and_losses_is_answered(connection: psycopg.Connection) -> None:
    """Its report as it was written before there were any; what was heard before is not taken back."""
    epoch = {"epoch": "0123456789abcdef", "head": 5, "unsettled": [[4, 5]]}
    call(connection, as_json(report(), epochs=[epoch | {"lost": [[2, 3]]}], boots=[boot_state()]), sub="pi-1")
    of_old = as_json(report(), epochs=[epoch])
    del of_old["boots"]
    reply = call(connection, of_old, sub="pi-1")

    assert reply["nonce"] == "n-1"
    assert only(connection, "select lost::text from scout_edge.heads") == "{[2,4)}"
    assert only(connection, "select count(*) from scout_edge.boots") == 1
