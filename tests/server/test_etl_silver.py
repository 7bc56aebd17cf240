"""Silver types what tills say, keeps the latest version whatever arrived when, and says what it could not read."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landing import EPOCH, MORNING, Landed, foreign, land, record
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from server.etl import run_checks, run_etl

GOOD = {
    "transaction_id": "t-1",
    "store_id": "102",
    "timestamp": "2026-01-20T10:30:00+08:00",
    "peso_value": Decimal("150.50"),
}

devices = count(1)


def typed(pool: ConnectionPool, connection: psycopg.Connection, *rows: Landed) -> list[dict[str, Any]]:
    """Land the rows as one load, run the ETL, and return the sales in order of their keys."""
    land(connection, rows)
    run_etl(pool)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from scout.silver_transactions order by transaction_key").fetchall()


def rejections(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """Every field that silver refused, with the reason."""
    return set(connection.execute("select field, reason from scout.silver_rejections"))


def test_a_whole_sale_is_typed_field_by_field(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Every field of the tills' shape, with nothing refused."""
    said = {
        **GOOD,
        "location": {"region": "NCR", "province": "Metro Manila", "city": "Quezon City", "barangay": "Commonwealth"},
        "product_category": "beverages",
        "brand_name": "Puro",
        "sku": "4800002",
        "units_per_transaction": 3,
        "basket_size": 2,
        "request_mode": "verbal",
        "request_type": "branded",
        "suggestion_accepted": True,
        "gender": "female",
        "age_bracket": "25-34",
        "duration_seconds": 41,
        "campaign_influenced": False,
        "handshake_score": Decimal("0.87"),
        "is_tbwa_client": True,
        "payment_method": "gcash",
        "customer_id": "c-1",
        "customer_type": "regular",
        "store_type": "urban_high",
        "economic_class": "C",
        "status": "sale",
        "items": [{"sku": "4800002", "product_name": "Café", "qty": 3, "unit_price": Decimal("9.5000")}],
    }

    (sale,) = typed(pool, connection, record(1, said))

    flat = {**said, **said["location"]}  # type: ignore[dict-item]
    for name in ("location", "items", "timestamp"):
        del flat[name]
    assert {name: sale[name] for name in flat} == flat
    assert sale["sold_at"] == datetime(2026, 1, 20, 2, 30, tzinfo=UTC)
    assert (sale["source_id"], sale["device_id"], sale["seq"]) == ("pi-1", "pi-1", 1)
    items = connection.execute(
        "select line_number, sku, product_name, product_category, qty, unit_price, total_price"
        " from scout.silver_transaction_items"
    ).fetchall()
    assert items == [(1, "4800002", "Café", None, Decimal(3), Decimal("9.5"), None)]
    assert rejections(connection) == set()


TYPING = [
    ("peso_value", "150.50", Decimal("150.50"), None),
    ("peso_value", " 150.5 ", Decimal("150.50"), None),
    ("peso_value", Decimal("0.30000000000000004"), Decimal("0.30"), None),
    ("peso_value", 0, Decimal("0.00"), None),
    ("peso_value", -5, Decimal("-5.00"), None),
    ("peso_value", "free", None, "not an amount"),
    ("peso_value", "1e3", None, "not an amount"),
    ("peso_value", 10**12, None, "not an amount"),
    ("peso_value", {"value": 1}, None, "not an amount"),
    ("peso_value", True, None, "not an amount"),
    ("peso_value", None, None, "missing"),
    ("peso_value", " ", None, "missing"),
    ("store_id", 102, "102", None),
    ("store_id", " 102 ", "102", None),
    ("store_id", ["102"], None, "not text, or too long"),
    ("store_id", None, None, "missing"),
    ("transaction_id", 17, "17", None),
    ("transaction_id", None, None, "missing"),
    ("transaction_id", {"a": 1}, None, "not text"),
    ("units_per_transaction", "3", 3, None),
    ("units_per_transaction", Decimal("3.0"), 3, None),
    ("units_per_transaction", -2, None, "not a whole number from 0"),
    ("units_per_transaction", Decimal("2.5"), None, "not a whole number from 0"),
    ("units_per_transaction", 2**31, None, "not a whole number from 0"),
    ("basket_size", "two", None, "not a whole number from 0"),
    ("duration_seconds", [1], None, "not a whole number from 0"),
    ("handshake_score", "0.5", Decimal("0.5"), None),
    ("handshake_score", 2, None, "not a number from 0 to 1"),
    ("payment_method", "card", "credit", None),
    ("payment_method", "GCash", "gcash", None),
    ("payment_method", "barter", None, "not a known value"),
    ("payment_method", "", None, None),
    ("economic_class", "a", "A", None),
    ("gender", 1, None, "not a known value"),
    ("status", "refunded", None, "not a known value"),
    ("suggestion_accepted", "true", True, None),
    ("suggestion_accepted", 0, False, None),
    ("suggestion_accepted", "perhaps", None, "not true or false"),
    ("customer_id", 603, "603", None),
    ("sku", True, None, "not text, or too long"),
    ("request_type", None, None, None),
]


@pytest.mark.parametrize("case", TYPING)
def test_a_field_is_typed_or_null_with_its_reason(
    pool: ConnectionPool, connection: psycopg.Connection, case: tuple[str, Any, Any, str | None]
) -> None:
    """What can't be typed costs that field alone, and the reason never quotes it."""
    field, said, expected, reason = case
    (sale,) = typed(pool, connection, record(1, {**GOOD, field: said}))

    expected_sale = {"store_id": "102", "peso_value": Decimal("150.50"), field: expected}
    assert {name: sale[name] for name in expected_sale} == expected_sale
    assert rejections(connection) == ({(field, reason)} if reason else set())


@pytest.mark.parametrize("field", ["total_amount", "amount", "transaction_amount"])
def test_the_amount_is_found_under_each_of_its_names(
    pool: ConnectionPool, connection: psycopg.Connection, field: str
) -> None:
    """Tills disagree on what to call it."""
    said = {name: value for name, value in GOOD.items() if name != "peso_value"}

    (sale,) = typed(pool, connection, record(1, {**said, field: Decimal("20.25")}))

    assert sale["peso_value"] == Decimal("20.25")
    assert rejections(connection) == set()


TIMES = [
    ("timestamp", "2026-01-20T10:30:00+08:00", "2026-01-20T02:30:00"),
    ("ts", "2026-01-20T02:30:00Z", "2026-01-20T02:30:00"),
    ("created_at", "2026-01-20T02:30:00.250Z", "2026-01-20T02:30:00.250"),
    ("captured_at", "2026-01-20 10:30:00+0800", "2026-01-20T02:30:00"),
    ("timestamp", "2026-01-20T10:30:00", "2026-01-20T02:30:00"),  # no offset: the store's own time
    ("timestamp", "2026-01-20T10:30", "2026-01-20T02:30:00"),
    ("ts_utc", "2026-01-20T02:30:00", "2026-01-20T02:30:00"),
]


@pytest.mark.parametrize(("field", "said", "expected"), TIMES)
def test_the_time_is_found_under_each_of_its_names(
    pool: ConnectionPool, connection: psycopg.Connection, field: str, said: str, expected: str
) -> None:
    """With or without an offset, in UTC or where the store is; the session's own zone changes nothing."""
    without = {name: value for name, value in GOOD.items() if name != "timestamp"}
    with pool.connection() as other:
        other.execute("set timezone = 'America/New_York'")

    (sale,) = typed(pool, connection, record(1, {**without, field: said}))

    assert sale["sold_at"] == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert rejections(connection) == set()


@pytest.mark.parametrize("said", ["now", "yesterday", "2026-02-30T10:00:00Z", "20 Jan 2026", "infinity", 20260120])
def test_a_time_that_is_none_gives_way_to_the_time_of_capture(
    pool: ConnectionPool, connection: psycopg.Connection, said: Any
) -> None:
    """Also the words that PostgreSQL itself would read: silver must not depend on when it was made."""
    (sale,) = typed(pool, connection, record(1, {**GOOD, "timestamp": said}))

    assert sale["sold_at"] == sale["captured_at"] == MORNING + timedelta(seconds=1)
    assert rejections(connection) == {("timestamp", "not a time")}


def test_the_seeds_first_post_is_a_sale_whose_gaps_are_named(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Store and amount, nothing else, and no intake that saw it."""
    (sale,) = typed(pool, connection, foreign({"store_id": "102", "peso_value": Decimal("150.50")}))

    assert (sale["store_id"], sale["peso_value"], sale["sold_at"]) == ("102", Decimal("150.50"), None)
    assert rejections(connection) == {("transaction_id", "missing"), ("timestamp", "missing")}


def test_day_and_hour_are_those_of_the_store(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Four in the afternoon in London is midnight in Manila."""
    sales = typed(
        pool,
        connection,
        record(1, {**GOOD, "transaction_id": "t-1", "timestamp": "2026-01-20T15:59:59Z"}),
        record(2, {**GOOD, "transaction_id": "t-2", "timestamp": "2026-01-20T16:00:00Z"}),
    )

    assert [(sale["business_day"], sale["business_hour"]) for sale in sales] == [
        (date(2026, 1, 20), 23),
        (date(2026, 1, 21), 0),
    ]


def test_items_that_are_none_are_named_and_the_others_kept(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """One rejection for a field of all lines; a line that is no object keeps its place."""
    items = [{"sku": "a", "qty": "x", "total_price": "1.00"}, 7, {"sku": "b", "qty": [1], "total_price": 0}]
    typed(
        pool,
        connection,
        record(1, {**GOOD, "transaction_id": "t-1", "items": items}),
        record(2, {**GOOD, "transaction_id": "t-2", "items": {"sku": "a"}}),
        record(3, {**GOOD, "transaction_id": "t-3", "items": None}),
    )

    lines = connection.execute(
        "select line_number, sku, qty, total_price from scout.silver_transaction_items order by 1"
    ).fetchall()
    assert lines == [(1, "a", None, Decimal(1)), (2, None, None, None), (3, "b", None, Decimal(0))]
    assert rejections(connection) == {
        ("items.qty", "not a number"),
        ("items", "holds something that is no item"),
        ("items", "not a list"),
    }


def test_no_rejection_quotes_what_was_said(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Reasons go to screens and reports; what a customer bought does not."""
    fields = {name: "Secret" for name, *_ in TYPING if name not in ("store_id", "transaction_id")}
    typed(pool, connection, record(1, {**GOOD, **fields, "items": [{"qty": "Secret", "sku": ["Secret"]}]}))

    found = connection.execute("select field || reason from scout.silver_rejections").fetchall()
    assert len(found) > 10
    assert not any("Secret" in text for (text,) in found)


def test_a_key_longer_than_an_index_entry_is_a_key_still(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A till that writes a poem into transaction_id poisons nothing, and its correction still meets it."""
    poem = "".join(chr(0x4E00 + number) for number in range(5000))
    sales = typed(
        pool,
        connection,
        record(1, {**GOOD, "transaction_id": poem}),
        record(2, {**GOOD, "transaction_id": poem, "peso_value": 7}),
    )

    assert [(sale["transaction_id"], sale["peso_value"]) for sale in sales] == [(poem, Decimal(7))]


def test_two_records_of_one_seq_without_a_transaction_id_are_two_sales(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A copied spool sold on from two places: neither sale may hide the other."""
    said = {name: value for name, value in GOOD.items() if name != "transaction_id"}
    sales = typed(pool, connection, *(record(7, {**said, "peso_value": n}, id=UUID(int=n)) for n in (1, 2)))

    assert [sale["transaction_key"] for sale in sales] == [f"{EPOCH}:7:{UUID(int=n)}" for n in (1, 2)]
    assert [sale["peso_value"] for sale in sales] == [1, 2]


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_version_captured_last_wins_and_brings_its_items(
    pool: ConnectionPool, connection: psycopg.Connection, newest_first: bool
) -> None:
    """A correction with fewer items, then one with none: nothing of the earlier version is left."""
    versions = [
        record(1, {**GOOD, "items": [{"sku": "a"}, {"sku": "b"}]}),
        record(2, {**GOOD, "peso_value": 2, "items": [{"sku": "c"}]}),
        record(3, {**GOOD, "transaction_id": "t-2", "items": [{"sku": "d"}]}),
        record(4, {**GOOD, "transaction_id": "t-2", "peso_value": 4, "status": "void"}),
    ]
    for version in reversed(versions) if newest_first else versions:
        sales = typed(pool, connection, version)

    assert [(sale["peso_value"], sale["status"]) for sale in sales] == [(2, None), (4, "void")]
    assert connection.execute("select transaction_key, sku from scout.silver_transaction_items").fetchall() == [
        ("t-1", "c")
    ]
    assert {0} == {result.contradictions for result in run_checks(pool)}


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[int]], list[bool], list[int]]:
    """Versions of a few sales; how they fall into loads; after which loads the ETL runs; which are done again."""
    versions = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "sale": st.sampled_from([None, "t-1", "t-2"]),
                    "second": st.integers(0, 3),
                    "is_foreign": st.booleans(),
                    "items": st.integers(0, 2),
                    "gender": st.sampled_from(["male", "odd"]),
                }
            ),
            min_size=1,
            max_size=8,
        )
    )
    order = draw(st.permutations(range(len(versions))))
    cuts = sorted(draw(st.sets(st.integers(1, len(versions)), max_size=4)) | {0, len(versions)})
    loads = [list(order[first:last]) for first, last in pairwise(cuts)]
    runs = draw(st.lists(st.booleans(), min_size=len(loads), max_size=len(loads)))
    again = draw(st.lists(st.integers(0, len(loads) - 1), max_size=3))
    return versions, loads, runs, again


def landed(device_id: str, place: int, version: dict[str, Any]) -> Landed:
    """The row that holds a version: the same but for its device, whenever it arrives."""
    at = MORNING + timedelta(seconds=version["second"])
    said = {
        "transaction_id": version["sale"],
        "store_id": "1",
        "timestamp": at.isoformat(),
        "peso_value": place,
        "gender": version["gender"],
        "items": [{"sku": f"{place}-{line}"} for line in range(version["items"])],
    }
    if version["is_foreign"]:
        return foreign(said, device_id=device_id)
    return record(place + 1, said, device_id=device_id, captured_at=at, id=UUID(int=place))


def silver(connection: psycopg.Connection, device_id: str) -> list[Any]:
    """All that silver says of a device, but for what numbers its rows."""
    queries = (
        (
            "select transaction_key, peso_value, sold_at, captured_at, version_at, gender, business_day"
            " from scout.silver_transactions where source_id = %s order by 1"
        ),
        (
            "select transaction_key, line_number, sku from scout.silver_transaction_items where source_id = %s"
            " order by 1, 2"
        ),
        (
            "select seq, identity, field, reason from scout.silver_rejections"
            " join scout.bronze_transactions_raw using (raw_id) where source_id = %s order by 1, 2, 3"
        ),
        (
            "select transaction_key, peso_value, sold_at, version_at, gender from scout.silver_transaction_versions"
            " where source_id = %s order by 1, 4, 2"
        ),
    )
    return [connection.execute(query, (device_id,)).fetchall() for query in queries]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(arrived=arrivals())
def test_any_order_split_and_repetition_of_loads_gives_the_same_silver(
    pool: ConnectionPool,
    connection: psycopg.Connection,
    arrived: tuple[list[dict[str, Any]], Sequence[list[int]], list[bool], list[int]],
) -> None:
    """One device's rows arrive as they may, another's all at once and in order: silver says the same of both."""
    versions, loads, runs, again = arrived
    one, other = f"pi-{next(devices)}", f"pi-{next(devices)}"
    load_ids = []
    for places, run in zip(loads, runs, strict=True):
        load_ids.append(land(connection, [landed(one, place, versions[place]) for place in places]))
        if run:
            run_etl(pool)
    run_etl(pool)
    for place in again:
        connection.execute(
            "insert into scout_bronze.loads (load_id, rows) overriding system value values (%s, 1)"
            " on conflict do nothing",
            (load_ids[place],),
        )
    land(connection, [landed(other, place, version) for place, version in enumerate(versions)])
    run_etl(pool)

    sales, items, refused, earlier = silver(connection, one)
    assert [sales, items, refused, earlier] == silver(connection, other)
    assert len(sales) == len({version["sale"] for version in versions} - {None}) + sum(
        version["sale"] is None for version in versions
    )
    arrived = connection.execute(
        "select count(*) from scout.bronze_transactions_raw where source_id = %s", (one,)
    ).fetchone()
    assert (len(sales) + len(earlier),) == arrived
    for key, peso_value, *_ in sales:
        rivals = [version for version in versions if version["sale"] == key]
        winner = versions[int(peso_value)]
        assert winner["second"] == max((version["second"] for version in rivals), default=winner["second"])
        assert len([line for line in items if line[0] == key]) == winner["items"]
