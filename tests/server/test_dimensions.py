"""Stores, devices, products and days: every one that a sale ever named, as the newest sales of now describe it."""

import random
import string
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise, permutations
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landing import MORNING, Landed, foreign, land, record
from psycopg_pool import ConnectionPool
from test_clock import hear
from test_etl import sale

from server import tokens
from server.etl import run_checks, run_etl

STORES = "select store_id, store_type, region, province, city, barangay from scout.dim_store order by 1"
DEVICES = "select device_id, source_id, store_id from scout.dim_device order by 1"
SKUS = "select sku, product_name, product_category, brand_name from scout.dim_sku order by 1"
BRANDS = "select brand_name from scout.dim_brand order by 1"
CATEGORIES = "select product_category from scout.dim_category order by 1"
DAYS = "select day from scout.dim_date order by 1"

numbers = count(1)


def rows(connection: psycopg.Connection, query: str, *of: str) -> list[tuple[Any, ...]]:
    """What a query returns."""
    return connection.execute(query.encode(), of).fetchall()


def firsts(connection: psycopg.Connection, query: str) -> list[Any]:
    """The first column of what a query returns."""
    return [row[0] for row in rows(connection, query)]


def arrive(pool: ConnectionPool, connection: psycopg.Connection, versions: Iterable[Landed]) -> None:
    """Land each row as a load of its own, and run the ETL after each."""
    for version in versions:
        land(connection, [version])
        run_etl(pool)


def contradictions(pool: ConnectionPool) -> dict[str, int]:
    """The checks that are contradicted."""
    return {result.check: result.contradictions for result in run_checks(pool) if result.contradictions}


def on(day: int, number: int, **said: Any) -> dict[str, Any]:
    """A sale at noon of a day of January 2026."""
    return sale(number, timestamp=f"2026-01-{day:02}T12:00:00+08:00", **said)


@pytest.mark.parametrize("order", list(permutations(range(4)))[::8])
def test_a_stores_place_and_type_are_its_newest_sales_whatever_arrives_last(
    pool: ConnectionPool, connection: psycopg.Connection, order: Sequence[int]
) -> None:
    """The place comes from one sale as a whole, be it voided, the type from one that names a type."""
    sales = [
        record(1, on(3, 1, location={"region": "NCR", "city": "Manila"}, store_type="rural")),
        record(2, on(5, 2, location={"region": "Region VII"}, status="void")),
        record(3, on(7, 3, location={"region": None, "city": " "}, store_type="castle")),
        record(4, on(4, 4, location={"region": "Region XI"}, store_type="transport")),
    ]

    arrive(pool, connection, [sales[place] for place in order])

    assert rows(connection, STORES) == [("102", "transport", "Region VII", None, None, None)]
    assert contradictions(pool) == {}


def test_of_two_sales_at_one_time_the_higher_key_describes(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Byte by byte: in the words of a dictionary `t-a` would come before `t-B`."""
    told = [("t-B", "rural"), ("t-a", "other"), ("t-C", "transport")]
    arrive(
        pool,
        connection,
        [record(n, on(3, n) | {"transaction_id": key, "store_type": kind}) for n, (key, kind) in enumerate(told)],
    )

    assert rows(connection, "select store_type from scout.dim_store") == [("other",)]


@pytest.mark.parametrize("order", list(permutations(range(3)))[::2])
def test_a_store_that_a_sale_no_longer_names_is_described_by_what_is_left(
    pool: ConnectionPool, connection: psycopg.Connection, order: Sequence[int]
) -> None:
    """The newest sale of 102 was corrected to be one of 103: 102 is as its older sale says, and 104 as nobody does."""
    there = {"location": {"region": "Region VII"}, "store_type": "rural"}
    rows_of = [
        [record(1, on(3, 1, location={"region": "NCR"}, store_type="other"))],
        [record(2, on(5, 2, **there)), record(3, on(6, 3, store_id="104", **there))],
        [record(4, on(5, 2, store_id="103", **there)), record(5, on(6, 3, store_id="103"))],
    ]
    for place in order:
        land(connection, rows_of[place])
        run_etl(pool)

    assert rows(connection, STORES) == [
        ("102", "other", "NCR", None, None, None),
        ("103", "rural", "Region VII", None, None, None),
        ("104", None, None, None, None, None),
    ]
    assert contradictions(pool) == {}


def test_a_corrected_clock_makes_another_sale_the_newest(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A sale without a time of its own, taken in 1970 as its device believed, was the newest after all."""
    tokens.add_device(connection, "pi-1")
    unsynced: dict[str, Any] = {"clock": "unsynced", "boot": "b-1", "mono_ms": 60_000}
    believed = datetime(1970, 1, 1, tzinfo=UTC)
    said = sale(2, timestamp=None, store_type="rural", sku="a", brand_name="Puro")
    land(connection, [record(1, on(20, 1, store_type="other", sku="a", brand_name="Lakan"))])
    land(connection, [record(2, said, captured_at=believed, **unsynced)])
    run_etl(pool)
    before = [*rows(connection, STORES), *rows(connection, SKUS), firsts(connection, DAYS)]

    hear(connection, datetime(2026, 1, 21, 3, tzinfo=UTC), boot="b-1")
    run_etl(pool)

    assert before == [("102", "other", *[None] * 4), ("a", None, None, "Lakan"), [date(2026, 1, 20)]]
    after = [*rows(connection, STORES), *rows(connection, SKUS), firsts(connection, DAYS)]
    assert after == [
        ("102", "rural", *[None] * 4),
        ("a", None, None, "Puro"),
        [date(2026, 1, 20), date(2026, 1, 21)],
    ]
    assert contradictions(pool) == {}


def test_the_time_zone_that_an_operator_set_stays(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A new store is in Manila's; what the sales say of a store never touches its zone."""
    connection.execute("insert into scout.dim_store (store_id, time_zone) values ('103', 'Asia/Tokyo')")
    arrive(pool, connection, [record(1, on(3, 1, store_type="rural")), record(2, on(3, 2, store_id="103"))])
    connection.execute("update scout.dim_store set time_zone = 'Asia/Dubai' where store_id = '102'")

    arrive(pool, connection, [record(3, on(4, 3, store_type="other")), record(4, on(4, 4, store_id="104"))])

    assert rows(connection, "select store_id, time_zone, store_type from scout.dim_store order by 1") == [
        ("102", "Asia/Dubai", "other"),
        ("103", "Asia/Tokyo", None),
        ("104", "Asia/Manila", None),
    ]


def test_a_device_is_in_the_store_of_its_newest_sale_that_names_one(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """One that names none moves it nowhere; a device whose sales another told anew is known, and nowhere."""
    connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-3', 'till'), ('pi-4', 'till')")
    arrive(
        pool,
        connection,
        [
            record(1, on(3, 1, store_id="103")),
            record(2, on(9, 2, store_id=None)),
            record(3, on(1, 3)),
            record(4, on(3, 4, store_id=None), device_id="pi-2"),
            record(5, on(3, 5), device_id="pi-3"),
            record(6, on(3, 5), device_id="pi-4"),
        ],
    )

    assert rows(connection, DEVICES) == [
        ("pi-1", "pi-1", "103"),
        ("pi-2", "pi-2", None),
        ("pi-3", "till", None),
        ("pi-4", "till", "102"),
    ]
    assert contradictions(pool) == {}


@pytest.mark.parametrize("latest_first", [True, False])
def test_all_that_any_version_ever_named_is_known(
    pool: ConnectionPool, connection: psycopg.Connection, latest_first: bool
) -> None:
    """Wherever in the sale it was named, and in whatever order the versions arrived."""
    first = on(
        3,
        1,
        sku="header",
        brand_name="of header",
        product_category="header's",
        items=[{"sku": "item", "brand_name": "of item", "category_name": "item's"}, {"sku": None}, "rubbish"],
        combo_basket=[{"sku": "combo"}],
        substitution_event={"from_sku": "from", "to_sku": "to"},
        substitution={"asked_brand_id": "asked", "final_brand_id": "final"},
    )
    then = on(3, 1, store_id="103", items=[{"sku": "new", "brand_name": "of new", "product_category": "new's"}])
    versions = [record(1, first), record(2, then, device_id="pi-1")]

    arrive(pool, connection, reversed(versions) if latest_first else versions)

    assert firsts(connection, SKUS) == ["combo", "from", "header", "item", "new", "to"]
    assert firsts(connection, BRANDS) == ["asked", "final", "of header", "of item", "of new"]
    assert firsts(connection, CATEGORIES) == ["header's", "item's", "new's"]
    assert firsts(connection, STORES) == ["102", "103"]
    assert rows(connection, f"{SKUS} limit 5")[3:] == [
        ("item", None, None, None),
        ("new", None, "new's", "of new"),
    ], "what only an earlier version said describes nothing"
    assert contradictions(pool) == {}


@pytest.mark.parametrize("order", list(permutations(range(4)))[::8])
def test_a_sku_is_what_the_newest_item_that_says_anything_of_it_says(
    pool: ConnectionPool, connection: psycopg.Connection, order: Sequence[int]
) -> None:
    """All three together; of two lines of one sale the last; a sale itself only where no item says anything."""
    versions = [
        record(1, on(3, 1, items=[{"sku": "a", "product_name": "Soda", "brand_name": "Lakan"}], status="void")),
        record(2, on(5, 2, items=[{"sku": "a", "brand_name": "Puro"}, {"sku": "a", "product_category": "drinks"}])),
        record(3, on(7, 3, sku="a", brand_name="Tala", product_category="tobacco", items=[{"sku": "a"}])),
        record(4, on(8, 4, sku="b", brand_name="Tala", items=[{"sku": "b", "qty": 2}])),
    ]
    arrive(pool, connection, [versions[place] for place in order])
    before = rows(connection, SKUS)

    arrive(pool, connection, [record(5, on(5, 2)), record(6, on(3, 1, items=[]))])

    assert before == [("a", None, "drinks", None), ("b", None, None, "Tala")]
    assert rows(connection, SKUS) == [("a", None, "tobacco", "Tala"), ("b", None, None, "Tala")]
    assert contradictions(pool) == {}


def test_the_calendar_reaches_from_the_first_sale_to_the_last(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """It grows and shrinks with the sales of now; a clock that is centuries off makes no calendar of centuries."""

    def at(day: str, seq: int, number: int, **said: Any) -> Landed:
        return record(seq, sale(number, timestamp=f"{day}T12:00:00+08:00", **said))

    steps = [
        ([at("1970-01-01", 1, 1), at("2100-01-01", 2, 2)], []),
        ([at("2026-01-20", 3, 3)], [date(2026, 1, 20)]),
        ([at("2026-01-23", 4, 4, status="void")], [date(2026, 1, day) for day in range(20, 24)]),
        ([at("2026-01-18", 5, 5)], [date(2026, 1, day) for day in range(18, 24)]),
        ([at("2026-01-21", 6, 4)], [date(2026, 1, day) for day in range(18, 22)]),
        ([at("2026-01-20", 7, 5)], [date(2026, 1, 20), date(2026, 1, 21)]),
        ([at("1999-12-31", seq, seq - 5) for seq in (8, 9, 10)], []),
    ]
    for landed, days in steps:
        land(connection, landed)
        run_etl(pool)
        assert firsts(connection, DAYS) == days
        assert contradictions(pool) == {}


def test_each_day_of_the_calendar_says_what_day_it_is(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Of 29 years as another calendar has them, whatever the language and the zone of who asks."""
    connection.execute("alter role current_user set timezone = 'America/Sao_Paulo'")
    first, last = date(2000, 1, 1), date(2028, 12, 31)
    arrive(
        pool,
        connection,
        [record(n, sale(n, timestamp=f"{day}T12:00:00+08:00")) for n, day in enumerate((first, last), start=1)],
    )

    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    right = []
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        iso = day.isocalendar()
        month = (day.year, (day.month + 2) // 3, day.month, day.replace(day=1))
        week = (iso.year, iso.week, day - timedelta(days=day.weekday()), iso.weekday)
        right.append((day, *month, *week, names[day.weekday()], day.weekday() >= 5))
    assert rows(connection, "select * from scout.dim_date order by day") == right


def test_a_name_that_no_index_could_hold_is_refused_and_its_sale_stays(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Of 6,000 letters at random, wherever it stands; the longest that is taken fits every index."""
    letters = random.Random(6)
    long = "".join(letters.choices(string.ascii_letters, k=6000))
    longest = "".join(chr(letters.randrange(0x20000, 0x2A000)) for _ in range(200))

    def naming(number: int, name: str) -> Landed:
        line = {"sku": name, "brand_name": name, "product_category": name}
        substitution = {"from_sku": name, "to_sku": name}
        said = {**line, "items": [line], "combo_basket": [line], "substitution_event": substitution}
        brands = {"asked_brand_id": name, "final_brand_id": name}
        key = {"transaction_id": longest[:199] + str(number), "store_id": name}
        return record(number, on(3, number, **said, substitution=brands) | key)

    land(connection, [naming(1, long), naming(2, longest)])
    run_etl(pool)

    refused = "select field from scout.silver_rejections where reason = 'not text, or too long' order by 1"
    headers = {"store_id", "sku", "brand_name", "product_category", "from_sku", "to_sku", "from_brand", "to_brand"}
    items = {"items.sku", "items.brand_name", "items.product_category", "combo_basket.sku"}
    assert firsts(connection, refused) == sorted(headers | items)
    assert firsts(connection, "select peso_value from scout.silver_transactions order by seq") == [1, 2]
    for query in (STORES, BRANDS, CATEGORIES, SKUS):
        assert firsts(connection, query) == [longest]
    assert contradictions(pool) == {}


def test_a_sale_that_is_read_by_another_dialect_leaves_what_it_described(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Store and sku stand elsewhere in it than was thought: both are described by an older sale, typed before it."""
    older = on(3, 1, location={"region": "NCR"}, items=[{"sku": "a", "product_name": "Soda"}])
    newer = on(5, 2, location={"region": "Region VII"}, items=[{"sku": "a", "code": "b", "product_name": "Pie"}])
    arrive(pool, connection, [record(1, older), record(2, newer | {"branch": "103"})])
    before = [*rows(connection, STORES), *rows(connection, SKUS)]

    connection.execute(
        "insert into scout.dialect (part, field, preference, path)"
        " values ('sale', 'store_id', 0, '{branch}'), ('item', 'sku', 0, '{code}')"
    )
    connection.execute(
        "insert into scout_bronze.loads (rows, first_raw_id, last_raw_id)"
        " select 20000, raw_id, raw_id from scout_bronze.transactions_raw order by raw_id"
    )
    run_etl(pool)

    assert before == [("102", None, "Region VII", None, None, None), ("a", "Pie", None, None)]
    assert rows(connection, STORES) == [
        ("102", None, "NCR", None, None, None),
        ("103", None, "Region VII", None, None, None),
    ]
    assert rows(connection, SKUS) == [("a", "Soda", None, None), ("b", "Pie", None, None)]
    assert contradictions(pool) == {}


def test_a_load_done_again_changes_no_dimension(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Nothing is written for what is there already."""
    said = on(3, 1, items=[{"sku": "a", "brand_name": "Puro", "product_category": "drinks"}], store_type="rural")
    load_id = land(connection, [record(1, said), foreign(on(4, 2))])
    first = {result.target: result.written for result in run_etl(pool)}

    connection.execute(
        "insert into scout_bronze.loads (load_id, rows) overriding system value values (%s, 1)", (load_id,)
    )
    again = {result.target: result.written for result in run_etl(pool)}

    dimensions = {
        "scout.dim_store": 1,
        "scout.dim_device": 1,
        "scout.dim_brand": 1,
        "scout.dim_category": 1,
        "scout.dim_sku": 1,
        "scout.dim_date": 2,
    }
    assert {target: first[target] for target in dimensions} == dimensions
    assert {again[target] for target in dimensions} == {0}


VERSION = st.fixed_dictionaries(
    {
        "sale": st.integers(1, 3),
        "device": st.integers(1, 2),
        "is_unsynced": st.booleans(),
        "day": st.sampled_from([None, 19, 21]),
        "store": st.sampled_from([None, "A", "B"]),
        "region": st.sampled_from([None, "NCR", "Region VII"]),
        "store_type": st.sampled_from([None, "rural", "other"]),
        "header": st.sampled_from([None, "a", "b"]),
        "brand": st.sampled_from([None, "Puro", "Lakan"]),
        "items": st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "Soda", "Pie"])), max_size=2),
        "combo": st.sampled_from([None, "a", "d"]),
        "to_sku": st.sampled_from([None, "b", "e"]),
        "status": st.sampled_from([None, "void"]),
    }
)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[int]], set[int], int]:
    """Versions of a few sales, each captured a second after the one before; how they fall into loads and runs."""
    versions = draw(st.lists(VERSION, min_size=1, max_size=7))
    order = draw(st.permutations(range(len(versions))))
    cuts = sorted(draw(st.sets(st.integers(1, len(versions)), max_size=4)) | {0, len(versions)})
    loads = [list(order[first:last]) for first, last in pairwise(cuts)]
    runs = draw(st.sets(st.integers(0, len(loads) - 1)))
    heard_after = draw(st.integers(0, len(loads) - 1))
    return versions, loads, runs, heard_after


def told(example: str, place: int, version: dict[str, Any]) -> Landed:
    """The row that holds a version. All names are the example's own."""

    def own(name: str | None) -> str | None:
        return name and f"{example} {name}"

    said = {
        "transaction_id": own(f"t-{version['sale']}"),
        "timestamp": version["day"] and f"2026-01-{version['day']}T12:00:00+08:00",
        "peso_value": place,
        "store_id": own(version["store"]),
        "location": {"region": version["region"]},
        "store_type": version["store_type"],
        "sku": own(version["header"]),
        "brand_name": own(version["brand"]),
        "items": [{"sku": own(sku), "product_name": name} for sku, name in version["items"]],
        "combo_basket": [{"sku": own(version["combo"])}],
        "substitution_event": {"to_sku": own(version["to_sku"])},
        "status": version["status"],
    }
    own_clock: dict[str, Any] = {"captured_at": MORNING + timedelta(seconds=place)}
    if version["is_unsynced"]:
        own_clock = {"captured_at": datetime(1970, 1, 1, tzinfo=UTC), "clock": "unsynced", "mono_ms": 1000 * place}
    device_id = f"{example}-{version['device']}"
    return record(place + 1, said, device_id=device_id, boot=f"{example}-boot", id=UUID(int=place + 1), **own_clock)


def sold_at(place: int, version: dict[str, Any]) -> datetime:
    """When a version says that its sale was made, else when it was captured."""
    if version["day"]:
        return datetime(2026, 1, version["day"], 4, tzinfo=UTC)
    return MORNING + timedelta(seconds=place)


def first_of(sales: Sequence[dict[str, Any]], wanted: str, **of: Any) -> Any:
    """What the first of the sales that says what is wanted says, among those that have the given values."""
    for one in sales:
        if one[wanted] is not None and all(one[name] == value for name, value in of.items()):
            return one[wanted]
    return None


def expected(versions: list[dict[str, Any]]) -> dict[str, Any]:
    """The dimensions, worked out from the versions as they were made."""
    latest = {version["sale"]: (place, version) for place, version in enumerate(versions)}
    by_time = sorted(latest.items(), key=lambda one: (sold_at(*one[1]), one[0]), reverse=True)
    newest = [version for _, (_, version) in by_time]
    lines = [
        {"sku": sku, "name": name} for version in newest for sku, name in reversed(version["items"]) if name is not None
    ]
    skus = {version[field] for version in versions for field in ("header", "combo", "to_sku")}
    skus |= {sku for version in versions for sku, _ in version["items"]}
    described = {sku: first_of(lines, "name", sku=sku) for sku in skus - {None}}
    return {
        "stores": {
            store: (first_of(newest, "store_type", store=store), first_of(newest, "region", store=store))
            for store in {version["store"] for version in versions} - {None}
        },
        "devices": {
            str(device): first_of(newest, "store", device=device)
            for device in {version["device"] for version in versions}
        },
        "brands": {version["brand"] for version in versions} - {None},
        "skus": {
            sku: (name, None if name else first_of(newest, "brand", header=sku)) for sku, name in described.items()
        },
    }


def found(connection: psycopg.Connection, example: str) -> dict[str, Any]:
    """The dimensions of an example, in the names that it was made of."""

    def own(name: str | None) -> str | None:
        return name and name.removeprefix(f"{example} ").removeprefix(f"{example}-")

    of = f"{example}_%"
    stores = rows(connection, "select store_id, store_type, region from scout.dim_store where store_id like %s", of)
    devices = rows(
        connection,
        "select device_id, store_id, source_id = %s from scout.dim_device where device_id like %s",
        example,
        of,
    )
    skus = rows(connection, "select sku, product_name, brand_name from scout.dim_sku where sku like %s", of)
    brands = rows(connection, "select brand_name from scout.dim_brand where brand_name like %s", of)
    assert all(is_right for _, _, is_right in devices)
    return {
        "stores": {own(store): (kind, region) for store, kind, region in stores},
        "devices": {own(device): own(store) for device, store, _ in devices},
        "brands": {own(brand) for (brand,) in brands},
        "skus": {own(sku): (name, own(brand)) for sku, name, brand in skus},
    }


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(arrived=arrivals())
def test_any_order_split_and_late_correction_gives_the_dimensions_that_the_versions_make(
    pool: ConnectionPool,
    connection: psycopg.Connection,
    arrived: tuple[list[dict[str, Any]], list[list[int]], set[int], int],
) -> None:
    """Two devices of one till tell its sales in versions; their clocks are corrected at any time between."""
    versions, loads, runs, heard_after = arrived
    example = f"e{next(numbers):04}"
    for device in (1, 2):
        tokens.add_device(connection, f"{example}-{device}")
    connection.execute("update scout_edge.devices set source = %s where device_id like %s", (example, f"{example}-%"))
    for place, load in enumerate(loads):
        land(connection, [told(example, version, versions[version]) for version in load])
        if place in runs:
            run_etl(pool)
        if place == heard_after:
            for device in (1, 2):
                hear(connection, MORNING, boot=f"{example}-boot", device_id=f"{example}-{device}")
    run_etl(pool)

    assert found(connection, example) == expected(versions)
    assert contradictions(pool) == {}
