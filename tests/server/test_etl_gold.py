"""Gold's answers are those of an independent computation over the till's own texts, to the cent."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from landing import land, record
from psycopg import sql
from psycopg_pool import ConnectionPool
from sales import sales

from server.database import SQL
from server.etl import run_checks, run_etl

SAMPLE = Path(__file__).parents[2] / "deploy" / "demo" / "sample"
MANILA = timezone(timedelta(hours=8))
VIEWS = [f"gold_{path.stem}" for path in sorted((SQL / "models" / "gold").glob("*.sql"))]

Sale = dict[str, Any]


def parsed(texts: Iterable[str]) -> list[Sale]:
    """The sales that count, each with its local time and its lines of revenue."""
    told = []
    for text in texts:
        sale = json.loads(text, parse_float=Decimal)
        if sale.get("status") == "void":
            continue
        sale["at"] = datetime.fromisoformat(sale["timestamp"]).astimezone(MANILA)
        sale["lines"] = [
            (item.get("sku"), item.get("brand_name"), item["qty"], item["total_price"])
            for item in sale.get("items") or []
        ] or [(sale.get("sku"), sale.get("brand_name"), sale.get("units_per_transaction"), sale["peso_value"])]
        told.append(sale)
    return told


def by(sales: Iterable[Sale], key: Callable[[Sale], Any]) -> dict[Any, list[Sale]]:
    """Group the sales."""
    groups = defaultdict(list)
    for sale in sales:
        groups[key(sale)].append(sale)
    return groups


def revenue(sales: Iterable[Sale]) -> Decimal:
    """What the sales brought, in pesos."""
    return sum((Decimal(sale["peso_value"]) for sale in sales), Decimal(0))


def cents(amount: Decimal) -> Decimal:
    """To the cent, half up."""
    return Decimal(amount).quantize(Decimal("0.01"), ROUND_HALF_UP)


def units(sales: Iterable[Sale]) -> int:
    """Units sold, where the till said."""
    return sum(sale.get("units_per_transaction") or 0 for sale in sales)


def distinct(sales: Iterable[Sale], field: str) -> int:
    """How many different values a field has."""
    return len({sale.get(field) for sale in sales} - {None})


def lines_by(sales: Iterable[Sale], place: int) -> set[tuple[Any, ...]]:
    """Sales, quantity and revenue of each sku (place 0) or brand (place 1)."""
    groups = defaultdict(list)
    for sale in sales:
        for line in sale["lines"]:
            groups[line[place] or "unknown"].append((sale["transaction_id"], *line))
    return {
        (
            key,
            len({transaction_id for transaction_id, *_ in lines}),
            sum(Decimal(qty or 0) for *_, qty, _ in lines),
            sum(Decimal(price) for *_, price in lines),
        )
        for key, lines in groups.items()
    }


def expected(sales: list[Sale]) -> dict[str, set[tuple[Any, ...]]]:
    """Each view's answer, computed without it."""
    days = by(sales, lambda sale: sale["at"].date())
    stores = by(sales, lambda sale: sale["store_id"])
    newest = max(days)

    def since(first: int, last: int) -> Decimal:
        return revenue(sale for sale in sales if first <= (newest - sale["at"].date()).days <= last)

    return {
        "gold_daily_revenue": {
            (day, len(of), revenue(of), cents(revenue(of) / len(of)), max(sale["peso_value"] for sale in of))
            for day, of in days.items()
        },
        "gold_txn_daily": {
            (day, len(of), units(of), distinct(of, "customer_id"), distinct(of, "store_id"), 1)
            for day, of in days.items()
        },
        "gold_hourly_pattern": {
            (hour, len(of), revenue(of), cents(Decimal(100 * len(of)) / len(sales)))
            for hour, of in by(sales, lambda sale: sale["at"].hour).items()
        },
        "gold_weekday_pattern": {
            (weekday, len({sale["at"].date() for sale in of}), len(of), revenue(of))
            for weekday, of in by(sales, lambda sale: sale["at"].isoweekday()).items()
        },
        "gold_store_performance": {
            (
                store,
                len(of),
                revenue(of),
                distinct(of, "customer_id"),
                min(sale["at"] for sale in of).date(),
                1 + sum(revenue(other) > revenue(of) for other in stores.values()),
            )
            for store, of in stores.items()
        },
        "gold_store_daily": {
            (store, day, len(of), revenue(of), units(of))
            for (store, day), of in by(sales, lambda sale: (sale["store_id"], sale["at"].date())).items()
        },
        "gold_product_performance": lines_by(sales, 0),
        "gold_brand_performance": lines_by(sales, 1),
        "gold_payment_analysis": {
            (method, len(of), revenue(of), cents(100 * revenue(of) / revenue(sales)))
            for method, of in by(sales, lambda sale: sale.get("payment_method") or "unknown").items()
        },
        "gold_executive_kpis": {
            (len(sales), revenue(sales), distinct(sales, "store_id"), min(days), newest, since(0, 6), since(7, 13))
        },
    }


QUERIES = {
    "gold_daily_revenue": "select business_day, transactions, revenue, average_sale, largest_sale",
    "gold_txn_daily": "select business_day, transactions, units, customers, stores, devices",
    "gold_hourly_pattern": "select business_hour, transactions, revenue, transactions_percent",
    "gold_weekday_pattern": "select weekday, days, transactions, revenue",
    "gold_store_performance": "select store_id, transactions, revenue, customers, first_day, revenue_rank",
    "gold_store_daily": "select store_id, business_day, transactions, revenue, units",
    "gold_product_performance": "select sku, transactions, coalesce(quantity, 0), revenue",
    "gold_brand_performance": "select brand_name, transactions, coalesce(quantity, 0), revenue",
    "gold_payment_analysis": "select payment_method, transactions, revenue, revenue_percent",
    "gold_executive_kpis": (
        "select transactions, revenue, stores, first_day, last_day, revenue_last_7_days, revenue_7_days_before"
    ),
}


def answers(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """What every view says."""
    return {
        view: connection.execute(f"{query} from scout.{view}".encode()).fetchall() for view, query in QUERIES.items()
    }


def sample_texts() -> list[str]:
    """The committed sample, one text per transaction."""
    return [
        line
        for path in sorted(SAMPLE.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]


@pytest.mark.parametrize("name", ["made", "sample"])
def test_every_view_is_what_the_tills_own_texts_add_up_to(
    pool: ConnectionPool, connection: psycopg.Connection, name: str
) -> None:
    """Ten views over 1,500 made sales and over the 5,001 real ones."""
    texts = [text.decode() for text in sales(1500, 7)] if name == "made" else sample_texts()
    for first in range(0, len(texts), 2000):
        land(connection, [record(first + n, text) for n, text in enumerate(texts[first : first + 2000], start=1)])
    run_etl(pool)

    right = expected(parsed(texts))
    found = answers(connection)

    assert list(right) == list(QUERIES)
    assert set(QUERIES) <= set(VIEWS)
    for view, rows in found.items():
        assert len(rows) == len(set(rows)), view
        assert set(rows) == right[view], view
        assert view == "gold_executive_kpis" or name == "sample" or len(rows) > 1, view
    assert {0} == {result.contradictions for result in run_checks(pool)}


def test_the_sample_arrives_whole_in_every_layer(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Counts and sums are those committed beside it, to the cent, and nothing is refused."""
    committed = json.loads((SAMPLE / "expected.json").read_text(encoding="utf-8"))["total"]
    land(connection, [record(n, text) for n, text in enumerate(sample_texts(), start=1)])
    run_etl(pool)

    found = connection.execute(
        """
        select
            (select count(*) from scout.bronze_edge_raw),
            (select count(*) from scout.bronze_transactions_raw),
            (select count(*) from scout.silver_edge_events),
            (select count(*) from scout.silver_transactions),
            (select count(*) from scout.silver_transaction_items),
            (select sum(peso_value) from scout.silver_transactions)::text,
            (select sum(total_price) from scout.silver_transaction_items)::text,
            (select sum(revenue) from scout.gold_daily_revenue)::text,
            (select sum(revenue) from scout.gold_product_performance)::text,
            (select count(*) from scout.silver_rejections)
        """
    ).fetchone()

    assert committed["transactions"] > 5000
    counts = [committed["transactions"]] * 4
    sums = [committed["peso_value"], committed["total_price"], committed["peso_value"], committed["peso_value"]]
    assert found == (*counts, committed["items"], *sums, 0)


def test_voids_leftovers_and_sales_without_items_are_told_apart(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Written by hand: what items leave over or exceed is a row of its own, and sums agree."""

    def sale(number: int, peso_value: str | None, items: list[Sale] | None, **fields: Any) -> Sale:
        at = {"timestamp": "2026-01-20T10:00:00+08:00", "store_id": "1"}
        return {"transaction_id": f"t-{number}", "peso_value": peso_value, "items": items, **at, **fields}

    land(
        connection,
        [
            record(1, sale(1, "10.00", [{"sku": "a", "qty": 2, "total_price": "7.50"}, {"sku": "b"}])),
            record(2, sale(2, "5.00", [{"sku": "a", "qty": 1, "total_price": "6.00"}])),
            record(3, sale(3, "3.00", None, sku="b", units_per_transaction=4)),
            record(4, sale(4, "2.00", [])),
            record(5, sale(5, "100.00", [{"sku": "a", "total_price": 100}], status="void")),
            record(6, sale(6, None, [{"sku": "c", "qty": 1, "total_price": "1.00"}])),
        ],
    )
    run_etl(pool)

    products = connection.execute(
        "select sku, transactions, quantity, revenue from scout.gold_product_performance order by sku"
    ).fetchall()
    assert products == [
        ("a", 2, 3, Decimal("13.50")),
        ("b", 2, 4, Decimal("3.00")),
        ("c", 1, 1, Decimal("1.00")),
        ("unallocated", 3, None, Decimal("0.50")),
        ("unknown", 1, None, Decimal("2.00")),
    ]
    days = connection.execute("select business_day, transactions, revenue from scout.gold_daily_revenue").fetchall()
    assert days == [(date(2026, 1, 20), 5, Decimal("20.00"))]
    assert {0} == {result.contradictions for result in run_checks(pool)}


def test_an_empty_warehouse_has_views_that_answer(connection: psycopg.Connection) -> None:
    """Before the first sale nothing divides by zero."""
    found = answers(connection)
    every = sql.SQL("select count(*) from scout.{}")
    counted = {view: connection.execute(every.format(sql.Identifier(view))).fetchone() for view in VIEWS}

    assert found["gold_executive_kpis"] == [(0, 0, 0, None, None, 0, 0)]
    assert {view for view, rows in counted.items() if rows != (0,)} <= {"gold_executive_kpis", "gold_data_quality"}


def test_every_relation_says_what_it_means(connection: psycopg.Connection) -> None:
    """Tables and views of production have a comment, and no view of gold depends on when it is asked."""
    rows = connection.execute(
        """
        select relname, obj_description(oid, 'pg_class'),
            case when relkind = 'v' then pg_get_viewdef(oid) else '' end
        from pg_class
        where relnamespace = 'scout'::regnamespace and relkind in ('r', 'v')
        """
    ).fetchall()

    assert set(VIEWS) < {name for name, *_ in rows}
    assert [name for name, comment, _ in rows if not comment] == []
    assert [name for name, _, text in rows if "now()" in text or "current_" in text.lower()] == []
