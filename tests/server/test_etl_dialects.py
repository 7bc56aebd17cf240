"""The same sale told in each of the tills' dialects is the same row of silver; a new dialect is a row of a table."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from landing import Landed, foreign, record
from psycopg_pool import ConnectionPool
from test_etl import only
from test_etl_versions import arrive, check, rows

from server.etl import run_etl, type_again

FIRST: dict[str, Any] = {
    "transaction_id": "t-1",
    "store_id": "102",
    "timestamp": "2026-01-20T10:30:00+08:00",
    "location": {"region": "NCR", "city": "QC", "barangay": "B1"},
    "request_type": "branded",
    "request_mode": "verbal",
    "payment_method": "maya",
    "gender": "male",
    "age_bracket": "25-34",
    "suggestion": {"offered": True},
    "suggestion_accepted": False,
    "peso_value": Decimal("1250.00"),
    "items": [
        {"product_category": "snacks", "brand_name": "Tala", "product_name": "Chips", "qty": 2, "total_price": 42}
    ],
}
SECOND: dict[str, Any] = {
    "transaction_id": "t-1",
    "ts_utc": "2026-01-20T02:30:00",
    "store": {"id": 102, "tz_offset_min": 480},
    "geo": {"region_id": "NCR", "city_id": "QC", "barangay_id": "B1"},
    "request": {
        "request_type": "branded",
        "request_mode": "verbal",
        "payment_method": "maya",
        "gender": "male",
        "age_bracket": "25-34",
    },
    "suggestion": {"offered": True, "accepted": False},
    "amounts": {"transaction_amount": "₱1,250.00"},
    "items": [
        {
            "category_name": "snacks",
            "brand_name": "Tala",
            "product_name": "Chips",
            "qty": 2,
            "unit": "pc",
            "total_price": "PHP 42",
            "detection_method": "speech",
            "confidence": Decimal("0.9"),
        }
    ],
}
THIRD: dict[str, Any] = {
    **{name: value for name, value in FIRST.items() if name not in ("transaction_id", "timestamp", "peso_value")},
    "id": "t-1",
    "timestamp": None,
    "captured_at": "2026-01-20 10:30",
    "peso_value": None,
    "total_amount": "1,250.00",
}
TOLD = (
    "select transaction_id, store_id, sold_at, business_day, business_hour, peso_value, region, city, barangay,"
    " request_type, request_mode, payment_method, gender, age_bracket, suggestion_offered, suggestion_accepted"
    " from scout.silver_transactions"
)


def told(pool: ConnectionPool, connection: psycopg.Connection, landed: Landed) -> tuple[dict[str, Any], dict[str, Any]]:
    """What silver makes of a sale, and of its one item."""
    arrive(pool, connection, landed)
    (sale,) = rows(connection, TOLD)
    (item,) = rows(
        connection,
        "select product_category, brand_name, product_name, qty, total_price from scout.silver_transaction_items",
    )
    return sale, item


@pytest.mark.parametrize("is_foreign", [True, False])
@pytest.mark.parametrize("said", [FIRST, SECOND, THIRD], ids=["first", "second", "third"])
def test_a_sale_is_the_same_in_each_dialect(
    pool: ConnectionPool, connection: psycopg.Connection, said: dict[str, Any], is_foreign: bool
) -> None:
    """Field by field, with nothing refused; what is null counts as not said."""
    sale, item = told(pool, connection, foreign(said) if is_foreign else record(1, said))

    flat = {**FIRST, **FIRST["location"], "suggestion_offered": True}
    expected = {name: flat[name] for name in sale if name not in ("sold_at", "business_day", "business_hour")}
    sold_at = datetime(2026, 1, 20, 2, 30, tzinfo=UTC)
    assert sale == expected | {"sold_at": sold_at, "business_day": sold_at.date(), "business_hour": 10}
    assert item == FIRST["items"][0]
    assert rows(connection, "select field, reason from scout.silver_rejections") == []
    assert rows(connection, "select transaction_id, store_id, event_at from scout.silver_edge_events") == [
        {"transaction_id": "t-1", "store_id": "102", "event_at": sold_at}
    ]
    check(pool)


def test_every_place_of_every_field_is_read(connection: psycopg.Connection) -> None:
    """Whatever the table says: a value in the place is told, null in it gives way to the next."""
    places = rows(
        connection, "select part, field, path, reader from scout.dialect join scout.told_fields using (part, field)"
    )
    assert len(places) > 60
    for place in places:
        said: Any = "told"
        for name in reversed(place["path"]):
            said = {name: said}
        query = "select to_jsonb(told) ->> %s from scout.{}(%s) as told".replace("{}", place["reader"])
        parameters = (place["field"], psycopg.types.json.Jsonb(said))
        assert connection.execute(query.encode(), parameters).fetchone() == ("told",), place


@pytest.mark.parametrize("said", ["null", "[]", "7", '"text"', "{}", '{"sku": null}'])
def test_an_element_that_is_no_item_tells_nothing(connection: psycopg.Connection, said: str) -> None:
    """One row of nulls; it never raises."""
    for reader in ("told_item", "told_combo_item"):
        query = "select told is null from scout.{}(%s) as told".replace("{}", reader)
        assert connection.execute(query.encode(), (said,)).fetchall() == [(True,)]


def test_an_operator_teaches_a_place_by_an_insert(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """For what comes from then on; for what is there, when all is typed again. Taken back, it is as before."""
    said = FIRST | {"peso_value": None, 'it\'s "paid"': {"%s $1": 7}}
    arrive(pool, connection, record(1, said))
    connection.execute(
        "insert into scout.dialect (part, field, preference, path) values ('sale', 'peso_value', 9, %s)",
        (['it\'s "paid"', "%s $1"],),
    )
    arrive(pool, connection, record(2, said | {"transaction_id": "t-2"}))
    query = "select coalesce(sum(peso_value), 0) from scout.silver_transactions"
    assert only(connection, query) == 7

    type_again(pool)
    run_etl(pool)
    assert only(connection, query) == 14
    assert rows(connection, "select * from scout.silver_rejections") == []

    connection.execute("delete from scout.dialect where preference = 9")
    type_again(pool)
    run_etl(pool)
    assert only(connection, query) == 0
    assert only(connection, "select count(*) from scout.silver_rejections where reason = 'missing'") == 2
    check(pool)


@pytest.mark.parametrize(
    ("part", "field"), [("sale", "revison"), ("sale", "timestamp_zone"), ("item", "revision"), ("sale", "items")]
)
def test_a_field_that_silver_does_not_have_is_refused(connection: psycopg.Connection, part: str, field: str) -> None:
    """A typing error would otherwise go unnoticed."""
    query = "insert into scout.dialect (part, field, preference, path) values (%s, %s, 1, '{a}')"
    with pytest.raises(psycopg.errors.RaiseException, match=f"silver has no field {field} in {part}") as refused:
        connection.execute(query, (part, field))

    assert "told_fields" in (refused.value.diag.message_hint or "")


def test_without_any_place_nothing_is_told_and_nothing_breaks(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """An empty table is a dialect, too."""
    connection.execute("truncate scout.dialect")
    arrive(pool, connection, record(1, FIRST))

    assert only(connection, "select count(*) from scout.silver_transactions where transaction_id is null") == 1
    assert only(connection, "select count(*) from scout.silver_rejections where reason = 'missing'") == 4
    check(pool)
