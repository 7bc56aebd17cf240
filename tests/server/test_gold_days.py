"""Gold by day, week and place, where sums agree and yet could mislead: midnight, a year's end, ties, nothing known."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pytest
from landing import land, record
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from server.database import SQL
from server.etl import run_checks, run_etl

SOLD_AT = "2026-01-20T10:00:00+08:00"
VIEWS = [f"gold_{path.stem}" for path in sorted((SQL / "models" / "gold").glob("*.sql"))]
PRODUCTS = {"gold_brand_performance", "gold_payment_analysis", "gold_product_performance"}

Row = dict[str, Any]

_numbers = count(1)


def sale(peso_value: str | None = "1.00", at: str | None = SOLD_AT, store_id: str | None = "1", **fields: Any) -> Row:
    """One sale as a till writes it."""
    return {
        "transaction_id": f"t-{next(_numbers)}",
        "peso_value": peso_value,
        "timestamp": at,
        "store_id": store_id,
        **fields,
    }


@pytest.fixture
def sold(pool: ConnectionPool, connection: psycopg.Connection) -> Any:
    """Give what brings these sales, of these stores, into the warehouse; no check may find anything there."""
    contradicted: set[str] = set()

    def bring(sales: list[Row], stores: dict[str, Row] | None = None, **of_record: Any) -> None:
        land(connection, [record(number, told, **of_record) for number, told in enumerate(sales, start=1)])
        run_etl(pool)
        for store_id, place in (stores or {}).items():
            # A column that isn't named is empty, whatever filled it.
            connection.execute("delete from scout.dim_store where store_id = %s", [store_id])
            connection.execute(
                "insert into scout.dim_store (store_id, store_type, region, province, city, barangay)"
                " values (%s, %s, %s, %s, %s, %s)",
                [store_id, *(place.get(name) for name in ("store_type", "region", "province", "city", "barangay"))],
            )
        # Places that were given here are not those that the sales name.
        if stores:
            contradicted.add("dim_store")
        assert {0} == {result.contradictions for result in run_checks(pool) if result.check not in contradicted}

    return bring


def rows(connection: psycopg.Connection, view: str) -> list[Row]:
    """What a view says, in its own order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.SQL("select * from scout.{}").format(sql.Identifier(f"gold_{view}"))).fetchall()


def column(connection: psycopg.Connection, view: str, *names: str) -> list[Any]:
    """Some columns of a view, in its own order; of a single one the bare values."""
    found = [tuple(row[name] for name in names) for row in rows(connection, view)]
    return [value for (value,) in found] if len(names) == 1 else found


def test_a_sale_counts_where_its_store_is(sold: Any, connection: psycopg.Connection) -> None:
    """Midnight, parts of the day and weekdays are the store's, whatever zone till, database and session are in."""
    connection.execute("set time zone 'America/Los_Angeles'")
    sold(
        [
            sale(at="2026-01-20T15:59:59Z"),  # the last second of Tuesday in Manila
            sale(at="2026-01-20T16:00:00Z"),  # the first of Wednesday
            sale(at="2026-01-20T21:59:59Z"),
            sale(at="2026-01-20T22:00:00Z"),  # six o'clock
        ]
    )

    assert column(connection, "daily_revenue", "business_day", "transactions") == [
        (date(2026, 1, 20), 1),
        (date(2026, 1, 21), 3),
    ]
    assert column(connection, "hourly_pattern", "business_hour", "transactions") == [(0, 1), (5, 1), (6, 1), (23, 1)]
    assert column(connection, "time_of_day", "part_of_day", "transactions") == [("morning", 1), ("night", 3)]
    assert column(connection, "weekday_pattern", "weekday", "transactions") == [(2, 1), (3, 3)]


def test_every_hour_is_in_its_part_of_the_day(sold: Any, connection: psycopg.Connection) -> None:
    """Morning, afternoon, evening and night in the day's order, and what has no hour last."""
    sold([sale(at=f"2026-01-20T{hour:02}:30:00+08:00") for hour in range(24)])
    sold([sale(at=None)], captured_at=None)

    assert column(connection, "time_of_day", "part_of_day", "transactions") == [
        ("morning", 6),
        ("afternoon", 6),
        ("evening", 4),
        ("night", 8),
        (None, 1),
    ]


def test_weeks_begin_on_monday_also_over_the_years_end(sold: Any, connection: psycopg.Connection) -> None:
    """A week of two years is one week, and growth looks at the calendar week before, not at the last with sales."""
    connection.execute("set time zone 'America/Los_Angeles'")
    sold(
        [
            sale("4.00", "2025-12-28T12:00:00+08:00"),  # a Sunday
            sale("3.00", "2025-12-29T00:00:00+08:00"),
            sale("2.00", "2026-01-04T23:59:59+08:00"),
            sale("6.00", "2026-01-12T12:00:00+08:00"),  # none in the week before
        ]
    )

    assert column(connection, "region_weekly", "week", "revenue", "revenue_week_before", "change_percent") == [
        (date(2025, 12, 22), 4, None, None),
        (date(2025, 12, 29), 5, 4, 25),
        (date(2026, 1, 12), 6, None, None),
    ]
    assert column(connection, "region_monthly", "month", "revenue", "revenue_month_before", "change_percent") == [
        (date(2025, 12, 1), 7, None, None),
        (date(2026, 1, 1), 8, 7, Decimal("14.29")),
    ]


def test_growth_is_of_the_same_region(sold: Any, connection: psycopg.Connection) -> None:
    """Another region's week before is nobody's."""
    sold(
        [sale("5.00", "2026-01-05T12:00:00+08:00", "1"), sale("7.00", "2026-01-12T12:00:00+08:00", "2")],
        {"1": {"region": "NCR"}, "2": {"region": "CAR"}},
    )

    assert column(connection, "region_weekly", "region", "revenue", "revenue_week_before") == [
        ("CAR", 7, None),
        ("NCR", 5, None),
    ]


def test_sales_without_time_store_and_value_are_in_every_sum(sold: Any, connection: psycopg.Connection) -> None:
    """They are one group: a day that is null, a place and a store `unknown`; counted, but as no store."""
    sold([sale(None, None, None), sale("2.50", None, None)], captured_at=None)
    unknown = {"transactions": 2, "revenue": Decimal("2.50"), "average_sale": Decimal("1.25")}

    for view in (
        "daily_revenue", "daily_metrics", "hourly_pattern", "time_of_day", "store_performance", "store_daily",
        "top_stores_by_region", "region_daily", "region_weekly", "region_monthly", "province_daily", "citymun_daily",
        "barangay_daily", "region_choropleth", "device_daily",
    ):  # fmt: skip
        (row,) = rows(connection, view)
        assert unknown.items() <= row.items(), view
        times = {"business_day", "business_hour", "part_of_day", "week", "month", "first_day", "last_day"} & set(row)
        assert {row[name] for name in times} <= {None}, view
        places = {"store_id", "store_type", "region", "province", "city", "barangay"} & set(row)
        assert {row[name] for name in places} <= {"unknown"}, view
        assert row.get("stores", 0) == 0, view
    assert column(connection, "weekday_pattern", "weekday", "days", "revenue_per_day") == [(None, 0, None)]
    assert column(connection, "region_choropleth", "revenue_per_store", "region_code") == [(None, None)]
    assert rows(connection, "revenue_trend") == []


def test_a_store_that_calls_itself_unknown_is_one_store(sold: Any, connection: psycopg.Connection) -> None:
    """It shares its row with the sales that name none, and no key is there twice."""
    sold([sale(store_id="unknown"), sale(store_id=None)], {"unknown": {"region": "NCR"}})

    assert column(connection, "store_performance", "store_id", "transactions") == [("unknown", 2)]
    assert column(connection, "store_daily", "store_id", "transactions") == [("unknown", 2)]
    assert column(connection, "region_daily", "region", "transactions") == [("NCR", 1), ("unknown", 1)]


def test_equal_revenue_has_an_equal_rank(sold: Any, connection: psycopg.Connection) -> None:
    """And the next one's rank counts both; all that share the tenth place are among the ten best."""
    revenues = [20, 19, 19, 17, 16, 15, 14, 13, 12, 3, 3, 3, 1]
    stores = [f"{number:02}" for number in range(len(revenues))]
    sold(
        [sale(str(revenue), store_id=store) for store, revenue in zip(stores, revenues, strict=True)],
        {store: {"region": "NCR"} for store in stores},
    )
    sold([sale("2.00", store_id="99", location={"region": "CAR"})])

    ranks = [1 + sum(other > revenue for other in revenues) for revenue in revenues]
    best = [("NCR", store, rank) for store, rank in zip(stores, ranks, strict=True) if rank <= 10]
    assert ranks.count(10) == 3
    assert column(connection, "top_stores_by_region", "region", "store_id", "region_rank") == [("CAR", "99", 1), *best]
    assert column(connection, "store_performance", "revenue_rank")[:4] == [1, 2, 2, 4]
    assert sum(column(connection, "top_stores_by_region", "region_revenue_percent")[1:]) == pytest.approx(
        Decimal(100 * (sum(revenues) - 1)) / sum(revenues), abs=Decimal("0.06")
    )


def test_a_trend_compares_calendar_days(sold: Any, connection: psycopg.Connection) -> None:
    """Days without sales are missing, count as nothing in the week's average, and are no day to compare with."""
    first = datetime.fromisoformat(SOLD_AT)
    pesos = {0: "7.00", 1: "1.00", 6: "5.00", 7: "10.50", 8: "0.00", 15: "3.00"}
    sold([sale(amount, (first + timedelta(days=day)).isoformat()) for day, amount in pesos.items()])

    measures = ("revenue_day_before", "revenue_week_before", "change_percent", "revenue_7_day_average")
    assert column(connection, "revenue_trend", *measures) == [
        (None, None, None, None),
        (7, None, None, None),
        (None, None, None, Decimal("1.86")),  # (7 + 1 + 5) / 7
        (5, 7, 50, Decimal("2.36")),  # (1 + 5 + 10.50) / 7
        (Decimal("10.50"), 1, -100, Decimal("2.21")),
        (None, 0, None, Decimal("0.43")),
    ]


def test_the_last_week_is_compared_with_the_one_before(sold: Any, connection: psycopg.Connection) -> None:
    """Seven days that end with the newest sale's, and no percentage of nothing."""
    sold([sale("6.00", "2026-01-20T10:00:00+08:00"), sale("3.00", "2026-01-14T10:00:00+08:00")])
    alone = column(connection, "executive_kpis", "revenue_last_7_days", "revenue_change_percent")
    sold([sale("12.00", "2026-01-13T10:00:00+08:00"), sale("99.00", "2026-01-06T10:00:00+08:00")])
    both = column(connection, "executive_kpis", "revenue_last_7_days", "revenue_change_percent")

    assert (alone, both) == ([(9, None)], [(9, -25)])


def test_where_all_was_voided_only_the_voids_are_counted(sold: Any, connection: psycopg.Connection) -> None:
    """Nothing divides by the sales that are not there."""
    sold([sale("9.00", status="void"), sale("8.00", status="void")])

    (txn,), (device,), (kpis,) = (rows(connection, view) for view in ("txn_daily", "device_daily", "executive_kpis"))
    for row in (txn, device, kpis):
        assert (row["transactions"], row["voided"], row["units"]) == (0, 2, 0)
    assert (device["revenue"], device["average_sale"], device["first_sold_at"]) == (0, None, None)
    assert (kpis["revenue"], kpis["average_sale"], kpis["revenue_change_percent"], kpis["last_day"]) == (0, *[None] * 3)
    others = set(VIEWS) - {"gold_txn_daily", "gold_device_daily", "gold_executive_kpis", "gold_data_quality"}
    assert {view for view in others if rows(connection, view.removeprefix("gold_"))} == set()


def test_a_place_is_the_stores_and_not_the_sales_own(sold: Any, connection: psycopg.Connection) -> None:
    """Each level within the one above it: two barangays of one name are two."""
    sold(
        [
            sale("1.00", store_id="1", location={"region": "told otherwise"}),
            sale("2.00", store_id="2"),
            sale("4.00", store_id="3"),
        ],
        {
            "1": {"region": "NCR", "province": "Metro Manila", "city": "Manila", "barangay": "San Isidro"},
            "2": {"region": "NCR", "province": "Metro Manila", "city": "Makati", "barangay": "San Isidro"},
            "3": {"region": "CAR"},
        },
    )

    assert column(connection, "region_daily", "region", "revenue", "stores") == [("CAR", 4, 1), ("NCR", 3, 2)]
    assert column(connection, "province_daily", "province", "revenue") == [("unknown", 4), ("Metro Manila", 3)]
    assert column(connection, "citymun_daily", "city", "revenue") == [("unknown", 4), ("Makati", 2), ("Manila", 1)]
    assert column(connection, "barangay_daily", "barangay", "revenue") == [
        ("unknown", 4),
        ("San Isidro", 2),
        ("San Isidro", 1),
    ]


def test_a_map_finds_each_region_however_it_is_spelled(sold: Any, connection: psycopg.Connection) -> None:
    """With both codes where both exist, and none of either where nobody knows the name."""
    spelled = ["NCR", "Metro Manila", "region vii", "Negros Island Region", "1900000000", "Atlantis"]
    sold(
        [sale(store_id=name) for name in spelled],
        {name: {"region": name} for name in spelled},
    )

    found = column(connection, "region_choropleth", "region", "region_code", "iso_code")
    assert set(found) == {
        ("NCR", "1300000000", "PH-00"),
        ("Metro Manila", "1300000000", "PH-00"),
        ("region vii", "0700000000", "PH-07"),
        ("Negros Island Region", "1800000000", None),
        ("1900000000", "1900000000", "PH-14"),
        ("Atlantis", None, None),
    }
    assert len(found) == len(spelled)
    assert set(column(connection, "region_choropleth", "revenue_per_store", "revenue_percent")) == {
        (1, Decimal("16.67"))
    }


def test_the_eighteen_regions_are_told_apart(connection: psycopg.Connection) -> None:
    """Each has one code of each kind and one name; no spelling belongs to two."""
    regions = connection.execute(
        "select region_code, count(distinct coalesce(iso_code, '')), count(distinct official_name), min(iso_code)"
        " from scout.regions group by region_code"
    ).fetchall()

    assert len(regions) == 18
    assert {(isos, names) for _, isos, names, _ in regions} == {(1, 1)}
    assert len({iso for *_, iso in regions}) == 18  # null is one of them
    assert all(len(code) == 10 and code.isdigit() and code.endswith("00000000") for code, *_ in regions)


def test_what_moved_sales_is_counted_once_a_sale(sold: Any, connection: psycopg.Connection) -> None:
    """Of sales that say so; what they don't say is not taken for no, nor for nought seconds."""
    sold(
        [
            sale(campaign_influenced=True, suggestion_accepted=True, is_tbwa_client=True, duration_seconds=10),
            sale(campaign_influenced=False, suggestion_accepted=False, is_tbwa_client=True, duration_seconds=15),
            sale(units_per_transaction=3, customer_id="c"),
            sale(units_per_transaction=1, customer_id="c"),
        ]
    )
    connection.execute("delete from scout.silver_substitutions")
    connection.execute(
        "insert into scout.silver_substitutions (source_id, transaction_key, raw_id, occurred)"
        " select source_id, transaction_key, raw_id, duration_seconds = 10 from scout.silver_transactions"
        " where duration_seconds is not null"
    )

    (row,) = rows(connection, "daily_metrics")
    assert row == {
        "business_day": date(2026, 1, 20),
        "transactions": 4,
        "revenue": 4,
        "average_sale": 1,
        "units": 4,
        "customers": 1,
        "stores": 1,
        "average_duration_seconds": Decimal("12.5"),
        "campaign_transactions": 1,
        "suggestions_accepted": 1,
        "substitutions": 1,
        "tbwa_transactions": 2,
    }


def test_every_column_of_these_views_says_what_it_counts(connection: psycopg.Connection) -> None:
    """Amounts, counts and shares need a unit: only columns of text, days and yes or no may go without."""
    silent = connection.execute(
        """
        select relname, attname
        from pg_class
        join pg_attribute on attrelid = pg_class.oid and attnum > 0
        where relnamespace = 'scout'::regnamespace
            and relname = any (%s)
            and atttypid = any ('{smallint,bigint,numeric,timestamptz}'::regtype[])
            and col_description(pg_class.oid, attnum) is null
        """,
        [sorted(set(VIEWS) - PRODUCTS)],
    ).fetchall()

    assert len(VIEWS) > 20
    assert silent == []
