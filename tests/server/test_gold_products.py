"""Gold of products and customers, where sums agree and yet could mislead: pairs, names, voids, and nothing known."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pytest
from landing import MORNING, land, record
from psycopg import sql
from psycopg_pool import ConnectionPool

from server.etl import run_checks, run_etl
from server.gold import refresh

MINE = (
    "basket_patterns",
    "brand_performance",
    "campaign_effect",
    "category_brand_share",
    "combo_pairs",
    "customer_activity",
    "customer_segments",
    "data_quality",
    "demographics",
    "economic_class",
    "payment_analysis",
    "product_mix",
    "product_performance",
    "request_behavior",
    "revenue_by_dim",
    "sku_performance",
    "substitution_flows",
    "suggestion_effect",
    "tbwa_client_share",
)

Sale = dict[str, Any]
Bring = Callable[..., None]

_numbers = count(1)


def sale(*skus: str | None, **fields: Any) -> Sale:
    """A sale as a till writes it: a peso and a piece of each sku."""
    items = [{"sku": sku, "qty": 1, "total_price": "1.00"} for sku in skus]
    said = {"store_id": "1", "timestamp": "2026-01-20T10:00:00+08:00", "peso_value": len(skus), "items": items}
    return {"transaction_id": f"t-{next(_numbers)}", **said, **fields}


@pytest.fixture
def sold(pool: ConnectionPool, connection: psycopg.Connection) -> Bring:
    """Give what brings sales into the warehouse; no check may find anything there."""

    def bring(*sales: Sale | str, **of_record: Any) -> None:
        land(connection, [record(next(_numbers), told, **of_record) for told in sales])
        run_etl(pool)
        assert {0} == {result.contradictions for result in run_checks(pool)}

    return bring


def answer(connection: psycopg.Connection, view: str, *names: str) -> list[tuple[Any, ...]]:
    """Some columns of a view, all where none is named, in its own order."""
    columns = sql.SQL(", ").join(map(sql.Identifier, names)) if names else sql.SQL("*")
    query = sql.SQL("select {} from scout.{}").format(columns, sql.Identifier(f"gold_{view}"))
    return connection.execute(query).fetchall()


def describe(connection: psycopg.Connection, sku: str, **described: str) -> None:
    """Say what a sku is, whatever the tills said."""
    connection.execute("delete from scout.dim_sku where sku = %s", [sku])
    connection.execute(
        "insert into scout.dim_sku (sku, product_name, product_category, brand_name) values (%s, %s, %s, %s)",
        [sku, *(described.get(name) for name in ("product_name", "product_category", "brand_name"))],
    )


def add_combo(connection: psycopg.Connection, sold: Sale, *skus: str | None) -> None:
    """Say what was sold as a combination in a sale that is in silver."""
    key = sold["transaction_id"]
    connection.execute("delete from scout.silver_combo_items where transaction_key = %s", [key])
    for line, sku in enumerate(skus, start=1):
        connection.execute(
            "insert into scout.silver_combo_items (source_id, transaction_key, line_number, raw_id, sku)"
            " select source_id, transaction_key, %s, raw_id, %s from scout.silver_transactions"
            " where transaction_key = %s",
            [line, sku, key],
        )


def add_substitution(connection: psycopg.Connection, sold: Sale, *, occurred: bool | None = True, **said: str) -> None:
    """Say what was taken instead in a sale that is in silver."""
    key = sold["transaction_id"]
    connection.execute("delete from scout.silver_substitutions where transaction_key = %s", [key])
    told = [said.get(name) for name in ("from_sku", "from_brand", "to_sku", "to_brand", "reason")]
    connection.execute(
        "insert into scout.silver_substitutions"
        " (source_id, transaction_key, raw_id, occurred, from_sku, from_brand, to_sku, to_brand, reason)"
        " select source_id, transaction_key, raw_id, %s, %s, %s, %s, %s, %s from scout.silver_transactions"
        " where transaction_key = %s",
        [occurred, *told, key],
    )


def test_lines_without_a_name_and_what_no_item_explains_are_rows_of_their_own(
    sold: Bring, connection: psycopg.Connection
) -> None:
    """Of every cut of the lines; a sale without items is one line, of what its header names."""

    def item(sku: str, category: str | None, brand: str | None, price: str) -> Sale:
        return {"sku": sku, "product_category": category, "brand_name": brand, "qty": 2, "total_price": price}

    sold(
        sale(peso_value="10.00", items=[item("a", "snacks", "Lakan", "4.00"), item("b", "snacks", None, "3.00")]),
        sale(peso_value="5.00", items=[item("a", "snacks", "Lakan", "6.00")], store_id=None),
        sale(peso_value="3.00", items=None, sku="c", product_category="drinks", units_per_transaction=4),
        sale(peso_value="2.00", items=[], store_id="2"),
    )

    assert answer(connection, "product_mix") == [
        ("snacks", 2, 2, 6, Decimal("13.00"), Decimal("65.00"), 1),
        ("drinks", 1, 1, 4, Decimal("3.00"), Decimal("15.00"), 2),
        ("unallocated", 1, 2, None, Decimal("2.00"), Decimal("10.00"), 3),
        ("unknown", 1, 1, None, Decimal("2.00"), Decimal("10.00"), 3),
    ]
    assert answer(connection, "category_brand_share", "product_category", "brand_name", "revenue", "category_rank") == [
        ("drinks", "unknown", Decimal("3.00"), 1),
        ("snacks", "Lakan", Decimal("10.00"), 1),
        ("snacks", "unknown", Decimal("3.00"), 2),
        ("unallocated", "unallocated", Decimal("2.00"), 1),
        ("unknown", "unknown", Decimal("2.00"), 1),
    ]
    assert answer(connection, "sku_performance", "store_id", "sku", "revenue", "store_revenue_percent") == [
        ("1", "a", Decimal("4.00"), Decimal("30.77")),
        ("1", "b", Decimal("3.00"), Decimal("23.08")),
        ("1", "c", Decimal("3.00"), Decimal("23.08")),
        ("1", "unallocated", Decimal("3.00"), Decimal("23.08")),
        ("2", "unknown", Decimal("2.00"), Decimal("100.00")),
        ("unknown", "a", Decimal("6.00"), Decimal("120.00")),
        ("unknown", "unallocated", Decimal("-1.00"), Decimal("-20.00")),
    ]


def test_a_product_is_named_as_the_dimension_names_it(sold: Bring, connection: psycopg.Connection) -> None:
    """Not as whichever line comes last in the alphabet; a sku that nobody described has no name."""
    sold(sale("a", "a", "b"), sale("a", timestamp="2026-01-22T10:00:00+08:00", store_id="2"))
    describe(connection, "a", product_name="Soda", product_category="drinks", brand_name="Lakan")
    describe(connection, "b")

    found = answer(connection, "product_performance")

    days = (date(2026, 1, 20), date(2026, 1, 22))
    assert found == [
        ("a", "Soda", "drinks", "Lakan", 2, 3, Decimal("3.00"), Decimal("1.0000"), 2, *days, 1),
        ("b", None, None, None, 1, 1, Decimal("1.00"), Decimal("1.0000"), 1, days[0], days[0], 2),
    ]
    assert ("1", "a", "Soda") in answer(connection, "sku_performance", "store_id", "sku", "product_name")


def test_what_is_bought_together_is_counted_by_sale(
    pool: ConnectionPool, sold: Bring, connection: psycopg.Connection
) -> None:
    """By hand: 40 sales, 20 with a, 16 with B, 12 with both. A sku on two lines counts once, and capitals are less."""
    sold(
        *(sale("a", "B", "a", None) for _ in range(12)),
        *(sale("a", None) for _ in range(7)),
        sale(items=None, sku="a"),
        *(sale("B", "c") for _ in range(4)),
        *(sale("d", "e") for _ in range(9)),
        *(sale() for _ in range(7)),
        *(sale("d", "e", "a", status="void") for _ in range(20)),
    )
    refresh(pool)

    lift = Decimal(40 * 12) / (20 * 16)
    pair = ("B", "a", 16, 20, 12, Decimal("30.0000"), Decimal("75.00"), Decimal("60.00"), lift)
    assert answer(connection, "basket_patterns") == [pair]

    sold(sale("e", "d"))
    assert answer(connection, "basket_patterns") == [pair]
    refresh(pool)
    assert [row[:5] for row in answer(connection, "basket_patterns")] == [
        ("B", "a", 16, 20, 12),
        ("d", "e", 10, 10, 10),
    ]


def test_combinations_are_counted_among_the_sales_that_have_one(sold: Bring, connection: psycopg.Connection) -> None:
    """By hand: 5 sales with a combination, 3 with a, 4 with b, 2 with both; one pair is enough to be shown."""
    told = [sale("x") for _ in range(8)]
    told[7]["status"] = "void"
    sold(*told)
    combos = [("b", "a", "b"), ("a", "b", None), ("a",), ("b",), ("b",), (None,), (), ("a", "b", "c")]
    for one, skus in zip(told, combos, strict=True):
        add_combo(connection, one, *skus)

    assert answer(connection, "combo_pairs") == [("a", "b", 3, 4, 2, Decimal("66.67"), Decimal("0.8333"))]


def test_substitutions_flow_from_what_was_asked_to_what_was_taken(sold: Bring, connection: psycopg.Connection) -> None:
    """By what the till said of the brand, else by what the sku is; shares are of all that left the same product."""
    told = [sale("x") for _ in range(8)]
    told[7]["status"] = "void"
    sold(*told)
    describe(connection, "a", brand_name="Lakan")
    describe(connection, "b", brand_name="Puro")
    for one in told[:2]:
        add_substitution(connection, one, from_sku="a", to_sku="b", reason="stockout")
    add_substitution(connection, told[2], from_sku="a", to_sku="b", to_brand="Tala")
    add_substitution(connection, told[3], from_sku="a", from_brand="Ani", to_sku="c")
    add_substitution(connection, told[4], to_brand="Puro")
    add_substitution(connection, told[5], occurred=False, from_sku="a", to_sku="b")
    add_substitution(connection, told[6], occurred=None, from_sku="a")
    add_substitution(connection, told[7], from_sku="a", to_sku="b", reason="stockout")

    assert answer(connection, "substitution_flows") == [
        ("a", "Lakan", "b", "Puro", "stockout", 2, Decimal("66.67")),
        ("a", "Ani", "c", "unknown", "unknown", 1, Decimal("100.00")),
        ("a", "Lakan", "b", "Tala", "unknown", 1, Decimal("33.33")),
        ("unknown", "unknown", "unknown", "Puro", "unknown", 1, Decimal("100.00")),
    ]


def test_an_answer_nobody_gave_is_none_of_the_answers(sold: Bring, connection: psycopg.Connection) -> None:
    """Unknown is neither yes nor no, and averages are of the sales that say."""
    sold(
        sale("a", suggestion_accepted=True, campaign_influenced=True, request_mode="verbal", duration_seconds=10),
        sale("a", suggestion_accepted=False, campaign_influenced=False, request_mode="verbal"),
        sale("a", units_per_transaction=3, request_mode="verbal", duration_seconds=5),
        sale("a", units_per_transaction=4),
    )

    suggestions = ("suggestion", "transactions", "average_units", "average_duration_seconds")
    assert answer(connection, "suggestion_effect", *suggestions) == [
        ("accepted", 1, None, Decimal("10.0")),
        ("declined", 1, None, None),
        ("unknown", 2, Decimal("3.50"), Decimal("5.0")),
    ]
    assert answer(connection, "campaign_effect", "campaign", "transactions_percent") == [
        ("influenced", Decimal("25.00")),
        ("not influenced", Decimal("25.00")),
        ("unknown", Decimal("50.00")),
    ]
    asked = ("request_mode", "transactions", "suggestions_accepted", "acceptance_percent")
    assert answer(connection, "request_behavior", *asked) == [
        ("verbal", 3, 1, Decimal("50.00")),
        ("unknown", 1, 0, None),
    ]


def test_who_said_unknown_and_who_said_nothing_are_one_row(sold: Bring, connection: psycopg.Connection) -> None:
    """Tills have a word for it, and some leave the field out."""
    sold(sale("a", gender="unknown", age_bracket="unknown"), sale("a"), sale("a", gender="male", customer_id="c-1"))

    assert answer(connection, "demographics", "gender", "age_bracket", "transactions", "customers") == [
        ("male", "unknown", 1, 1),
        ("unknown", "unknown", 2, 0),
    ]
    assert answer(connection, "customer_segments", "customer_type", "transactions_per_customer") == [
        ("unknown", Decimal("1.00")),
    ]


def test_customers_lapse_as_the_newest_sale_of_all_moves_on(sold: Bring, connection: psycopg.Connection) -> None:
    """By the newest business day of any sale, a stranger's too; voided sales and the calendar of today don't count."""
    newest = date(2026, 4, 30)

    def bought(customer_id: str | None, days_ago: int, **fields: Any) -> Sale:
        return sale("a", customer_id=customer_id, timestamp=f"{newest - timedelta(days_ago)}T10:00:00+08:00", **fields)

    sold(
        bought(None, 0),
        bought("c", -40, status="void"),
        *(bought(f"after {days}", days) for days in (30, 31, 90, 91)),
        bought("after 30", 300, store_id="2", peso_value="5.00"),
    )
    sold(sale("a", timestamp=None, customer_id="timeless", peso_value="0.50"), captured_at=None)

    shown = ("customer_id", "transactions", "stores", "days", "days_since_last", "activity")
    assert answer(connection, "customer_activity", *shown) == [
        ("after 30", 2, 2, 2, 30, "active"),
        ("after 31", 1, 1, 1, 31, "lapsing"),
        ("after 90", 1, 1, 1, 90, "lapsing"),
        ("after 91", 1, 1, 1, 91, "lapsed"),
        ("timeless", 1, 1, 0, None, None),
    ]


def test_a_month_without_clients_has_a_share_of_nothing(sold: Bring, connection: psycopg.Connection) -> None:
    """Zero, not null; and a month that sold for nothing has no share of revenue."""
    sold(
        sale("a", is_tbwa_client=True, timestamp="2026-01-31T23:59:59+08:00", peso_value="3.00"),
        sale("a", timestamp="2026-01-01T00:00:00+08:00"),
        sale("a", is_tbwa_client=False, timestamp="2026-02-01T00:00:00+08:00"),
        sale("a", is_tbwa_client=True, timestamp="2026-03-01T00:00:00+08:00", peso_value=0),
    )

    assert answer(connection, "tbwa_client_share", "month", "tbwa_transactions_percent", "tbwa_revenue_percent") == [
        (date(2026, 1, 1), Decimal("50.00"), Decimal("75.00")),
        (date(2026, 2, 1), Decimal("0.00"), Decimal("0.00")),
        (date(2026, 3, 1), Decimal("100.00"), None),
    ]


def test_each_dimension_divides_the_whole(sold: Bring, connection: psycopg.Connection) -> None:
    """Twelve dimensions, each with every sale in it, the ones that say nothing too."""
    sold(sale("a", gender="male", request_type="point"), sale("a", "b", store_id=None, payment_method="card"))

    found = answer(connection, "revenue_by_dim", "dimension", "value", "transactions", "revenue", "revenue_percent")

    assert len({dimension for dimension, *_ in found}) == 12
    for dimension in {dimension for dimension, *_ in found}:
        rows = [row for row in found if row[0] == dimension]
        assert (sum(row[2] for row in rows), sum(row[3] for row in rows)) == (2, Decimal("3.00")), dimension
    assert {
        ("weekday", "2", 2, Decimal("3.00"), Decimal("100.00")),
        ("part_of_day", "morning", 2, Decimal("3.00"), Decimal("100.00")),
        ("payment_method", "credit", 1, Decimal("2.00"), Decimal("66.67")),
        ("store", "unknown", 1, Decimal("2.00"), Decimal("66.67")),
        ("region", "unknown", 2, Decimal("3.00"), Decimal("100.00")),
    } < set(found)


def test_an_id_from_two_devices_of_a_store_is_counted_once(sold: Bring, connection: psycopg.Connection) -> None:
    """Two devices, or three, of one store; not the corrections of one device, nor another store's."""
    told = [{**sale("a"), "transaction_id": "twice"} for _ in range(3)]
    for device, one in zip(("pi-1", "pi-2", "pi-3"), told, strict=True):
        sold(one, device_id=device)
    sold({**told[0], "store_id": "2"}, device_id="pi-4")
    corrected = sale("a")
    sold(corrected, {**corrected, "peso_value": "9.00"})
    sold({**sale("a"), "transaction_id": "voided"}, device_id="pi-1")
    sold({**sale("a"), "transaction_id": "voided", "status": "void"}, device_id="pi-2")

    measured = {measure: rows for measure, _, rows, _ in answer(connection, "data_quality")}

    assert measured["ids_from_two_devices"] == 2
    assert measured["sales_not_adding_up"] == 1


def test_what_data_lacks_is_counted(sold: Bring, connection: psycopg.Connection) -> None:
    """By hand: ten sales, each lacking one thing or none, and what could not be read."""
    sold(
        sale("a"),
        sale("a", status="void", store_id=None, peso_value=None, items=None),
        sale("a", store_id=None),
        sale("a", peso_value=None),
        sale(),
        sale(items=None),
        sale("a", "b", peso_value=3),
        sale("a", gender="nobody's", payment_method="shells"),
        "[1, 2]",
    )
    sold(sale("a", timestamp=None), captured_at=None)
    connection.execute("update scout.silver_edge_events set claimed_device_id = 'pi-9' where raw_id = 1")

    found = answer(connection, "data_quality")

    assert [row for row in found if row[0] != "rejected_fields"] == [
        ("sales", "", 9, Decimal("90.00")),
        ("voided_sales", "", 1, Decimal("10.00")),
        ("earlier_versions", "", 0, None),
        ("sales_without_time", "", 1, Decimal("10.00")),
        ("sales_without_store", "", 2, Decimal("20.00")),
        ("sales_without_value", "", 2, Decimal("20.00")),
        ("sales_without_items", "", 3, Decimal("30.00")),
        ("sales_not_adding_up", "", 2, Decimal("20.00")),
        ("ids_from_two_devices", "", 0, None),
        ("claimed_other_device", "", 1, None),
        ("unreadable_payloads", "", 1, None),
    ]
    rejected = {field: rows for measure, field, rows, _ in found if measure == "rejected_fields"}
    assert (rejected["gender"], rejected["payment_method"], rejected["payload"], rejected["store_id"]) == (1, 1, 1, 2)


def test_a_voided_sale_is_in_no_view(pool: ConnectionPool, sold: Bring, connection: psycopg.Connection) -> None:
    """Whatever it was, when and whose: of these views only data_quality says that there were any."""
    told = [sale("a", "b", customer_id="c-1") for _ in range(12)]
    sold(*told)
    add_combo(connection, told[0], "a", "b")
    add_substitution(connection, told[0], from_sku="a", to_sku="b")
    refresh(pool)
    before = {view: answer(connection, view) for view in MINE}
    assert [view for view, rows in before.items() if not rows] == []

    other = {
        "store_id": "9", "timestamp": "2027-01-20T20:00:00+08:00", "gender": "male", "customer_id": "c-9",
        "customer_type": "new", "economic_class": "A", "payment_method": "cash", "request_mode": "verbal",
        "request_type": "point", "suggestion_accepted": True, "campaign_influenced": True, "is_tbwa_client": True,
    }  # fmt: skip
    voided = [sale("a", "z", peso_value="7.00", status="void", **other) for _ in range(12)]
    voided += [sale(peso_value="7.00", sku="z", items=None, status="void", **other)]
    sold(*voided)
    for one in voided:
        add_combo(connection, one, "a", "z")
        add_substitution(connection, one, from_sku="a", to_sku="z")
    assert refresh(pool)

    after = {view: answer(connection, view) for view in MINE}
    quality = {measure: rows for measure, _, rows, _ in after.pop("data_quality")}
    assert before.pop("data_quality")
    assert after == before
    assert (quality["sales"], quality["voided_sales"], quality["sales_without_items"]) == (12, 13, 0)


def test_sales_for_nothing_have_no_shares(sold: Bring, connection: psycopg.Connection) -> None:
    """A warehouse that took no peso, or has no sale at all, answers: nothing divides by zero."""
    empty = {view: answer(connection, view) for view in MINE}
    quality = empty.pop("data_quality")
    assert {(rows, percent) for _, _, rows, percent in quality} == {(0, None)}
    assert len(quality) == 11
    assert [view for view, rows in empty.items() if rows] == []

    sold(sale("a", peso_value=0, items=[{"sku": "a", "qty": 0, "total_price": 0}]), sale(peso_value="0.00"))

    assert answer(connection, "payment_analysis") == [("unknown", 2, 0, 0, 100, None)]
    assert answer(connection, "product_performance", "sku", "revenue", "average_price") == [
        ("a", 0, None),
        ("unknown", 0, None),
    ]
    assert {percent for (percent,) in answer(connection, "product_mix", "revenue_percent")} == {None}
    assert {percent for (percent,) in answer(connection, "sku_performance", "store_revenue_percent")} == {None}


def test_a_correction_takes_a_pair_apart(pool: ConnectionPool, sold: Bring, connection: psycopg.Connection) -> None:
    """Whichever version arrives last, the items of the newest one count."""
    told = [sale("a", "b") for _ in range(11)]
    later = {"captured_at": MORNING + timedelta(days=1)}
    sold({**told[0], "items": [{"sku": "a"}], "peso_value": 0}, **later)
    sold(*told)
    refresh(pool)
    assert [row[:5] for row in answer(connection, "basket_patterns")] == [("a", "b", 11, 10, 10)]

    sold({**told[1], "status": "void"}, **later)
    refresh(pool)
    assert answer(connection, "basket_patterns") == []
