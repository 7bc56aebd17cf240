"""Gold is what DuckDB makes of the tills' own texts: on thousands of sales, and after each way a sale can change."""

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from answers import Answers, assert_same, dull, found, told
from histories import SOURCES, ZONES, history, join_devices, set_zones
from landing import Landed, json_text, land
from psycopg_pool import ConnectionPool
from test_gold_by_hand import records as twenty_sales

from server.etl import run_checks, run_etl

LOAD_ROWS = 2000
OF_ONE_ROW = ["scout.gold_executive_kpis"]
"""One group, always: it has nothing to differ from."""

OF_NO_MONEY = {"gold_txn_daily", "gold_basket_patterns", "gold_combo_pairs", "gold_substitution_flows"}
OF_DAYS = {
    "gold_txn_daily",
    "gold_daily_revenue",
    "gold_daily_metrics",
    "gold_weekday_pattern",
    "gold_revenue_trend",
    "gold_store_daily",
    "gold_region_daily",
    "gold_province_daily",
    "gold_citymun_daily",
    "gold_barangay_daily",
    "gold_device_daily",
    "gold_revenue_by_dim",  # it has weekdays
    "gold_data_quality",  # it counts the earlier version
    "daily_transactions",
}
OF_HOURS = {"gold_hourly_pattern"}
OF_WEEKS = {"gold_region_weekly", "weekly_performance"}
OF_MONTHS = {"gold_region_monthly", "gold_tbwa_client_share", "monthly_trends"}
OF_PRODUCT_DAYS = {"gold_product_performance", "product_insights"}
EVERY = {
    *OF_NO_MONEY, *OF_DAYS, *OF_HOURS, *OF_WEEKS, *OF_MONTHS, *OF_PRODUCT_DAYS,
    "gold_time_of_day", "gold_executive_kpis", "gold_store_performance", "gold_top_stores_by_region",
    "gold_region_choropleth", "gold_product_mix", "gold_sku_performance", "gold_brand_performance",
    "gold_category_brand_share", "gold_request_behavior", "gold_suggestion_effect", "gold_demographics",
    "gold_customer_segments", "gold_customer_activity", "gold_payment_analysis", "gold_campaign_effect",
    "gold_economic_class", "store_rankings",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutation:
    """One of the twenty sales, what its till tells of it later, and the views and tables that this must change.

    It must change no others.
    """

    sale: str
    told_later: dict[str, Any]
    concerns: set[str]


MUTATIONS = {
    "another sale with the same content": Mutation("t-15", {"transaction_id": "t-99"}, EVERY),
    "voided": Mutation("t-15", {"status": "void"}, EVERY),
    "corrected": Mutation("t-4", {"peso_value": Decimal("35.00")}, EVERY - OF_NO_MONEY),
    # From half a minute before midnight, on the last Saturday of January, to half a minute past.
    "shifted past midnight": Mutation(
        "t-6", {"timestamp": "2026-02-01T00:00:30+08:00"}, OF_DAYS | OF_HOURS | OF_MONTHS
    ),
    # From Sunday to Monday, at the same hour; it alone has a revenue that no item explains.
    "shifted into the next week": Mutation(
        "t-10", {"timestamp": "2026-02-02T12:00:00+08:00"}, OF_DAYS | OF_WEEKS | OF_PRODUCT_DAYS
    ),
    "told again in the same words": Mutation("t-3", {}, {"gold_data_quality"}),
}


def land_all(connection: psycopg.Connection, records: list[Landed]) -> None:
    """Land the records in loads of some thousand rows."""
    for first in range(0, len(records), LOAD_ROWS):
        land(connection, records[first : first + LOAD_ROWS])


def named(rows: list[Landed], name: str) -> Landed:
    """The first record of the sale with this id."""
    return next(row for row in rows if json.loads(row.payload)["transaction_id"] == name)


def later(row: Landed, fields: dict[str, Any]) -> Landed:
    """The sale as its till tells it again, twelve hours later."""
    assert row.captured_at is not None
    assert row.seq is not None
    text = json_text(json.loads(row.payload, parse_float=Decimal) | fields)
    at = row.captured_at + timedelta(hours=12)
    return replace(row, payload=text, id=uuid4(), seq=row.seq + 100, captured_at=at)


def changed(before: Answers, after: Answers) -> set[str]:
    """Names, without their schema, of what no longer says the same."""
    return {name.partition(".")[2] for name in before if before[name] != after[name]}


def test_every_view_and_table_of_20000_made_sales(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Exact to the cent, whole rows, and no column of any of them says the same of everything."""
    records = history(20_000, seed=7)
    set_zones(connection, ZONES)
    join_devices(connection, SOURCES)
    land_all(connection, records)
    run_etl(pool)

    right = told(records, ZONES, SOURCES)

    assert list(dull(right)) == OF_ONE_ROW
    assert_same(found(connection), right)
    assert {0} == {result.contradictions for result in run_checks(pool)}


@pytest.fixture
def base(pool: ConnectionPool, connection: psycopg.Connection) -> Answers:
    """Land the twenty sales; return what gold says of them before anything happens."""
    land(connection, twenty_sales())
    run_etl(pool)
    answers = found(connection)
    assert {name.partition(".")[2] for name in answers} == EVERY
    return answers


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_happens_to_a_sale_changes_what_it_concerns(
    pool: ConnectionPool, connection: psycopg.Connection, base: Answers, name: str
) -> None:
    """And nothing else; afterwards every answer is right again."""
    mutation = MUTATIONS[name]
    records = twenty_sales()
    news = later(named(records, mutation.sale), mutation.told_later)
    land(connection, [news])
    run_etl(pool)

    answers = found(connection)

    assert_same(answers, told([*records, news]))
    assert changed(base, answers) == mutation.concerns
    assert {0} == {result.contradictions for result in run_checks(pool)}


def test_a_sale_that_is_missing_is_missed_by_every_view_and_table(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Each answer is right without it, right once it came, and not the same."""
    sale = named(twenty_sales(), "t-15")
    others = [row for row in twenty_sales() if row.payload != sale.payload]
    land(connection, others)
    run_etl(pool)
    without = found(connection)
    land(connection, [sale])
    run_etl(pool)
    complete = found(connection)

    assert_same(without, told(others))
    assert_same(complete, told([*others, sale]))
    assert changed(without, complete) == EVERY


def test_the_same_records_again_change_nothing(
    pool: ConnectionPool, connection: psycopg.Connection, base: Answers
) -> None:
    """A load that is moved once more, as after a restored table: the landing table itself takes no record twice."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        land(connection, [row for row in twenty_sales() if row.seq == 1] * 2)
    connection.execute(
        "insert into scout_bronze.loads (load_id, rows) overriding system value"
        " select distinct load_id, 22 from scout_bronze.transactions_raw"
    )
    run_etl(pool)

    assert_same(found(connection), base)
