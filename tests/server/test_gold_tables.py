"""The five tables of scout_gold: kept up to date by what silver touched, they are what all of silver adds up to."""

import json
import random
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from landing import MORNING, Landed, foreign, land, record
from programs import scout_server
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from test_etl import ETL, only, sale, wait_until

from server.database import SQL
from server.etl import run_checks, run_etl
from server.schema import migrate

TABLES = ("daily_transactions", "weekly_performance", "monthly_trends", "store_rankings", "product_insights")
MANILA = timezone(timedelta(hours=8))
GOLD_STEP = re.compile(r"'(scout_gold\.\w+|scout\.refresh_(store|product)_days)'")
DEVICES = ("pi-1", "pi-2", "pi-3")
MEDDLING = (
    # A boot is measured, or measured again.
    """
    with measured as (
        insert into scout_edge.boots values (%(device)s, 'boot-1', %(at)s, 40)
        on conflict (device_id, boot) do update set zero_at = excluded.zero_at
    )
    insert into scout_bronze.loads (rows, device_id, boot) values (1, %(device)s, 'boot-1')
    """,
    # A load is told again.
    """
    insert into scout_bronze.loads (load_id, rows) overriding system value
    select min(load_id), 1 from scout.bronze_transactions_raw
    on conflict do nothing
    """,
    # A store or a product is described anew.
    """
    insert into scout.dim_store (store_id, region, store_type) values (%(store)s, %(word)s, %(word)s)
    on conflict (store_id) do update set region = excluded.region, store_type = excluded.store_type
    """,
    """
    insert into scout.dim_sku (sku, product_name, product_category) values (%(sku)s, %(word)s, %(word)s)
    on conflict (sku) do update set (product_name, product_category) = (excluded.sku, excluded.product_category)
    """,
    # Somebody has a hand in silver.
    """
    update scout.silver_transactions set (business_day, store_id) = (%(at)s::date, %(store)s)
    where transaction_key = %(key)s
    """,
    "update scout.silver_transaction_items set sku = %(sku)s where line_number = 2",
    "delete from scout.silver_transaction_items where line_number = 3",
)
"""What others do between runs of the ETL."""

Row = dict[str, Any]
Stored = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def one_till(connection: psycopg.Connection) -> None:
    """A database where three devices tell of one till's sales: a correction may come from another one."""
    connection.execute(
        "insert into scout_edge.devices (device_id, source) select unnest(%s::text[]), 'till'", (list(DEVICES),)
    )


def stored(connection: psycopg.Connection) -> Stored:
    """By table, its rows, each with the place where it lies."""
    return {
        table: {
            row[2:]: row[:2]
            for row in connection.execute(f"select ctid, xmin, * from scout_gold.{table}".encode())  # noqa: S608
        }
        for table in TABLES
    }


def rows(connection: psycopg.Connection) -> dict[str, set[tuple[Any, ...]]]:
    """By table, its rows."""
    return {table: set(found) for table, found in stored(connection).items()}


def rebuilt(connection: psycopg.Connection) -> dict[str, set[tuple[Any, ...]]]:
    """By table, the rows that making everything anew gives; changes nothing."""
    with connection.transaction(force_rollback=True):
        connection.execute("select * from scout_gold.rebuild()")
        return rows(connection)


def asked(connection: psycopg.Connection, query: str) -> list[Row]:
    """Rows by column."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def rounded(amount: Decimal | None, places: int = 2) -> Decimal | None:
    """Half up, as money is."""
    return None if amount is None else amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def over(part: Decimal, whole: Decimal | None) -> Decimal | None:
    """A quotient; None where there is none."""
    return Decimal(part) / whole if whole else None


def percent(part: Decimal, whole: Decimal | None) -> Decimal | None:
    """To two places; None where there is nothing to compare with."""
    return rounded(over(100 * part, whole))


def by(sales: Iterable[Row], *keys: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Group the sales."""
    groups = defaultdict(list)
    for one in sales:
        groups[tuple(key(one) for key in keys)].append(one)
    return groups


def revenue(sales: Iterable[Row]) -> Decimal:
    """What the sales brought."""
    return sum((one["peso_value"] or Decimal(0) for one in sales), Decimal(0))


def units(sales: Iterable[Row]) -> int:
    """Units sold, where the till said."""
    return sum(one["units_per_transaction"] or 0 for one in sales)


def distinct(sales: Iterable[Row], field: str) -> int:
    """How many different values a field has."""
    return len({one[field] for one in sales} - {None})


def measures(sales: list[Row]) -> tuple[Any, ...]:
    """Transactions, revenue, average sale."""
    return len(sales), revenue(sales), rounded(over(revenue(sales), Decimal(len(sales))))


def rank(one: Decimal, all_of: Iterable[Decimal]) -> int:
    """1 is the best; equals share a rank."""
    return 1 + sum(other > one for other in all_of)


def expected(connection: psycopg.Connection) -> dict[str, set[tuple[Any, ...]]]:
    """By table, its rows, computed from silver without it."""
    told = [one for one in asked(connection, "select * from scout.silver_transactions") if one["business_day"]]
    counted = [one for one in told if one["status"] != "void"]
    return {
        "daily_transactions": set(of_days(told)),
        "weekly_performance": set(of_periods(counted, monday, lambda week: week - timedelta(days=7))),
        "monthly_trends": set(of_periods(counted, first, lambda month: first({"business_day": month - DAY}))),
        "store_rankings": set(of_stores(counted, asked(connection, "select * from scout.dim_store"))),
        "product_insights": set(
            of_products(
                counted,
                asked(connection, "select * from scout.silver_transaction_items"),
                asked(connection, "select * from scout.dim_sku"),
            )
        ),
    }


DAY = timedelta(days=1)


def monday(one: Row) -> date:
    """The week of a sale."""
    day: date = one["business_day"]
    return day - timedelta(days=day.weekday())


def first(one: Row) -> date:
    """The month of a sale."""
    day: date = one["business_day"]
    return day.replace(day=1)


def of_days(told: list[Row]) -> Iterable[tuple[Any, ...]]:
    """Daily transactions."""
    groups = by(told, lambda one: one["business_day"], lambda one: one["device_id"] or "unknown")
    for key, every in groups.items():
        good = [one for one in every if one["status"] != "void"]
        count, brought, average = measures(good)
        values = [one["peso_value"] for one in good if one["peso_value"] is not None]
        times = [one["sold_at"] for one in good if one["sold_at"]]
        yield (
            *key,
            count,
            len(every) - count,
            brought,
            average,
            max(values, default=None),
            units(good),
            distinct(good, "customer_id"),
            min(times, default=None),
            max(times, default=None),
        )


def of_periods(
    counted: list[Row], period: Callable[[Row], date], before: Callable[[date], date]
) -> Iterable[tuple[Any, ...]]:
    """Weekly performance or monthly trends."""
    groups = by(counted, period, lambda one: one["store_id"] or "unknown")
    for (begins, store), sales in groups.items():
        rivals = [revenue(of) for (other, _), of in groups.items() if other == begins]
        earlier = groups.get((before(begins), store))
        brought_before = None if earlier is None else revenue(earlier)
        yield (
            begins,
            store,
            *measures(sales),
            units(sales),
            distinct(sales, "customer_id"),
            distinct(sales, "business_day"),
            brought_before,
            None if brought_before is None else percent(revenue(sales) - brought_before, brought_before),
            percent(revenue(sales), sum(rivals, Decimal(0))),
            rank(revenue(sales), rivals),
        )


def of_stores(counted: list[Row], dim_store: list[Row]) -> Iterable[tuple[Any, ...]]:
    """Store rankings."""
    kinds = {one["store_id"]: (one["store_type"] or "unknown", one["region"] or "unknown") for one in dim_store}
    groups = {store: sales for (store,), sales in by(counted, lambda one: one["store_id"] or "unknown").items()}
    for store, sales in groups.items():
        store_type, region = kinds.get(store, ("unknown", "unknown"))
        neighbours = [revenue(of) for other, of in groups.items() if kinds.get(other, ("", "unknown"))[1] == region]
        days = distinct(sales, "business_day")
        yield (
            store,
            store_type,
            region,
            *measures(sales),
            units(sales),
            days,
            rounded(revenue(sales) / days),
            percent(revenue(sales), revenue(counted)),
            rank(revenue(sales), map(revenue, groups.values())),
            rank(revenue(sales), neighbours),
        )


def lines_of(one: Row, items: list[Row]) -> Iterable[Row]:
    """Where the revenue of a sale came from."""
    for item in items:
        yield one | {"sku": item["sku"] or "unknown", "qty": item["qty"], "peso_value": item["total_price"]}
    if not items:
        yield one | {"sku": one["sku"] or "unknown", "qty": one["units_per_transaction"]}
        return
    left = (one["peso_value"] or 0) - sum(item["total_price"] or 0 for item in items)
    if left:
        yield one | {"sku": "unallocated", "qty": None, "peso_value": left}


def of_products(counted: list[Row], items: list[Row], dim_sku: list[Row]) -> Iterable[tuple[Any, ...]]:
    """Product insights."""
    baskets = by(items, lambda item: item["source_id"], lambda item: item["transaction_key"])
    lines = [
        line for one in counted for line in lines_of(one, baskets.get((one["source_id"], one["transaction_key"]), []))
    ]
    named = {one["sku"]: (one["product_name"], one["product_category"], one["brand_name"]) for one in dim_sku}
    unnamed = (None, None, None)
    groups = {sku: of for (sku,), of in by(lines, lambda line: line["sku"]).items()}
    for sku, of in groups.items():
        names = named.get(sku, unnamed)
        rivals = [revenue(others) for other, others in groups.items() if named.get(other, unnamed)[1] == names[1]]
        quantities = [line["qty"] for line in of if line["qty"] is not None]
        quantity = Decimal(sum(quantities)) if quantities else None
        yield (
            sku,
            *names,
            len({(line["source_id"], line["transaction_key"]) for line in of}),
            quantity,
            revenue(of),
            rounded(over(revenue(of), quantity), 4),
            min(line["business_day"] for line in of),
            max(line["business_day"] for line in of),
            percent(revenue(of), revenue(lines)),
            rank(revenue(of), map(revenue, groups.values())),
            rank(revenue(of), rivals),
        )


class History:
    """A till's random sales and what becomes of them, as rows that may arrive in any order."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seqs = 0

    def version(self) -> Landed:
        """Tell of a sale, new or known: each time another day, store, device, amount, basket or fate."""
        self.seqs += 1
        chance, number = self.chance, self.seqs
        said = {
            "transaction_id": f"t-{chance.randint(1, 12)}",
            "store_id": chance.choice(["101", "102", "103", None]),
            "timestamp": self.moment(),
            "peso_value": chance.choice([None, Decimal(chance.randint(-200, 2000)) / 100]),
            "units_per_transaction": chance.choice([None, 0, 1, 3]),
            "customer_id": chance.choice([None, "c-1", "c-2"]),
            "sku": chance.choice([None, "rice", "soap"]),
            "items": [self.item() for _ in range(chance.choice([0, 0, 1, 3]))],
            "status": chance.choice([None, "sale", "void"]),
        }
        clock, mono_ms = chance.choice([("synced", None), ("unsynced", number * 1000)])
        device = chance.choice(DEVICES)
        if chance.random() < 0.1:
            return foreign(said | {"transaction_id": f"t-{number}"}, device_id=device)
        captured_at = MORNING + timedelta(seconds=chance.randint(1, 60))
        own = {"id": UUID(int=number), "clock": clock, "mono_ms": mono_ms, "captured_at": captured_at}
        return record(number, said, device_id=device, **own)

    def moment(self) -> str | None:
        """When a sale was: within a few days around the end of a month, of a week and of a year, or unknown."""
        at = datetime(2025, 12, 28, 22, tzinfo=MANILA) + timedelta(hours=self.chance.choice([0, 3, 30, 100, 200]))
        return self.chance.choice([at.isoformat()] * 4 + [None])

    def item(self) -> Row:
        """A line: what the till didn't say is left out, and nothing need add up."""
        return {
            "sku": self.chance.choice([None, "rice", "soap", "gum"]),
            "qty": self.chance.choice([None, None, 1, Decimal("0.25")]),
            "total_price": self.chance.choice([None, Decimal("10.25"), Decimal(0)]),
        }

    def meddle(self, connection: psycopg.Connection) -> None:
        """Do one of them."""
        chance = self.chance
        values = {
            "device": chance.choice(DEVICES),
            "at": MORNING + timedelta(days=chance.randint(0, 40)),
            "store": chance.choice(["101", "102"]),
            "key": f"t-{chance.randint(1, 12)}",
            "sku": chance.choice(["rice", "soap"]),
            "word": chance.choice([None, "north", "south"]),
        }
        connection.execute(chance.choice(MEDDLING).encode(), values)


@pytest.mark.parametrize("seed", range(8))
def test_after_each_run_the_tables_are_what_silver_adds_up_to(
    pool: ConnectionPool, connection: psycopg.Connection, seed: int
) -> None:
    """And what a rebuild gives, through sales that move, are voided and come back; no row is written that stays."""
    history = History(seed)
    for _ in range(12):
        before = stored(connection)
        for _ in range(history.chance.randint(1, 3)):
            land(connection, [history.version() for _ in range(history.chance.randint(1, 5))])
        if history.chance.random() < 0.5:
            history.meddle(connection)
        run_etl(pool)

        after = stored(connection)
        assert {table: set(found) for table, found in after.items()} == expected(connection) == rebuilt(connection)
        for table in TABLES:
            assert {row: after[table][row] for row in before[table] if row in after[table]}.items() <= (
                before[table].items()
            )
    assert min(len(found) for found in after.values()) >= 2
    assert {result.contradictions for result in run_checks(pool) if "gold" in result.check} == {0}


def told(number: int, **fields: Any) -> Landed:
    """A version of sale t-1, the later the higher its number."""
    said = sale(number, items=[{"sku": "rice", "qty": 1, "total_price": number}])
    return record(number, said | {"transaction_id": "t-1"} | fields, device_id=fields.pop("device_id", "pi-1"))


def test_a_sale_that_moves_touches_where_it_was_and_where_it_is(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Day, week, month, store and device: the groups without a sale are gone."""
    land(connection, [told(1)])
    run_etl(pool)
    before = rows(connection)
    moved = {"timestamp": "2026-03-02T10:30:00+08:00", "store_id": "103"}
    land(connection, [record(2, sale(2, transaction_id="t-1", **moved), device_id="pi-2")])
    run_etl(pool)

    keys = {table: sorted(row[:2] for row in found) for table, found in rows(connection).items()}
    assert keys["daily_transactions"] == [(date(2026, 3, 2), "pi-2")]
    assert keys["weekly_performance"] == [(date(2026, 3, 2), "103")]
    assert keys["monthly_trends"] == [(date(2026, 3, 1), "103")]
    assert [store for store, _ in keys["store_rankings"]] == ["103"]
    assert [sku for sku, _ in keys["product_insights"]] == ["unknown"]
    assert all(len(found) == 1 for found in before.values())
    assert rows(connection) == expected(connection)


def test_a_voided_sale_leaves_its_day_with_a_void_and_nothing_else(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """And comes back where a later version is no void."""
    land(connection, [told(1)])
    run_etl(pool)
    land(connection, [told(2, status="void")])
    run_etl(pool)
    voided = rows(connection)
    land(connection, [told(3)])
    run_etl(pool)

    assert [row[:6] for row in voided["daily_transactions"]] == [(date(2026, 1, 20), "pi-1", 0, 1, 0, None)]
    assert not any(found for table, found in voided.items() if table != "daily_transactions")
    assert all(len(found) == 1 for found in rows(connection).values())
    assert rows(connection) == expected(connection)


def test_a_load_that_gold_refuses_is_alone_and_held_back_whole(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Its neighbours reach gold; it follows once what broke it is mended, and then all is as if it never was."""
    good, bad = (land(connection, [record(number, sale(number), device_id=f"pi-{number}")]) for number in (1, 2))
    connection.execute("alter table scout_gold.daily_transactions add constraint no_poison check (device_id <> 'pi-2')")
    run_etl(pool)
    left = connection.execute("select load_id, error from scout_bronze.loads").fetchall()
    held_back = rows(connection)
    connection.execute("alter table scout_gold.daily_transactions drop constraint no_poison")
    connection.execute("update scout_bronze.loads set tried_at = tried_at - interval '2 hours'")
    run_etl(pool)

    assert good != bad
    assert left == [(bad, "scout_gold.refresh_daily_transactions raised SQLSTATE 23514")]
    assert [row[1] for row in held_back["daily_transactions"]] == ["pi-1"]
    assert [row[4] for row in held_back["store_rankings"]] == [1]
    assert {row[1] for row in rows(connection)["daily_transactions"]} == {"pi-1", "pi-2"}
    assert rows(connection) == expected(connection)


def test_a_change_that_commits_late_is_not_missed(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A hand in silver waits while the ETL recomputes the same day: the next run takes it in, without a new load."""
    land(connection, [record(1, sale(1)), record(2, sale(2))])
    run_etl(pool)
    with psycopg.connect(database_url) as hand:
        hand.execute("update scout.silver_transactions set peso_value = 100 where transaction_id = 't-1'")
        land(connection, [record(3, sale(3))])
        run_etl(pool)
        meanwhile = rows(connection)
        hand.commit()
    run_etl(pool)

    assert [row[4] for row in meanwhile["daily_transactions"]] == [6]
    assert [row[4] for row in rows(connection)["daily_transactions"]] == [105]
    assert rows(connection) == expected(connection)


def test_a_store_or_product_described_anew_is_so_at_the_next_run(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Without any load: also where a description is taken back."""
    land(connection, [record(1, sale(1, sku="rice"))])
    run_etl(pool)
    seen = []
    for region in ("north", "south", None):
        connection.execute("delete from scout.dim_store")
        connection.execute("delete from scout.dim_sku")
        if region:
            connection.execute("insert into scout.dim_store (store_id, region) values ('102', %s)", (region,))
            connection.execute("insert into scout.dim_sku (sku, product_name) values ('rice', %s)", (region,))
        run_etl(pool)
        seen += connection.execute(
            "select region, product_name from scout_gold.store_rankings cross join scout_gold.product_insights"
        ).fetchall()
        assert rows(connection) == expected(connection)

    assert seen == [("north", "north"), ("south", "south"), ("unknown", None)]


def test_a_rebuild_waits_for_the_run_that_is_under_way(database_url: str, connection: psycopg.Connection) -> None:
    """And the run's rows are in it."""
    land(connection, [record(1, sale(1))])
    with psycopg.connect(database_url) as running, psycopg.connect(database_url, autocommit=True) as other:
        running.execute(ETL.encode())
        rebuild = threading.Thread(target=other.execute, args=("select * from scout_gold.rebuild()",))
        rebuild.start()
        wait_until(connection, "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
        running.commit()
        rebuild.join()

    assert all(len(found) == 1 for found in rows(connection).values())
    assert rows(connection) == expected(connection)


def test_a_rebuild_mends_what_somebody_changed(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """And refuses to work from a snapshot older than the run it waited for."""
    land(connection, [record(number, sale(number)) for number in (1, 2)])
    run_etl(pool)
    connection.execute("update scout_gold.product_insights set revenue = 0")
    connection.execute("update scout.product_days set transactions = 17")
    connection.execute("delete from scout_gold.store_rankings")
    broken = {result.check for result in run_checks(pool) if result.contradictions}
    connection.execute("select * from scout_gold.rebuild()")
    connection.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
        connection.execute("select * from scout_gold.rebuild()")

    assert broken == {"product_days", "scout_gold_product_insights", "scout_gold_store_rankings"}
    assert rows(connection) == expected(connection)
    assert only(connection, "select count(*) from scout_gold.product_insights") == 1


def test_the_command_rebuilds_and_says_how_many_rows(database_url: str, connection: psycopg.Connection) -> None:
    """In words and as JSON, also what was in silver before the tables were."""
    land(connection, [record(number, sale(number)) for number in (1, 2)])
    connection.execute(ETL.encode())
    connection.execute("delete from scout_gold.daily_transactions")

    words = scout_server("gold", "rebuild", "--database-url", database_url)
    printed = scout_server("gold", "rebuild", "--database-url", database_url, "--json")

    assert (words.returncode, printed.returncode) == (0, 0)
    assert "scout_gold.daily_transactions: 1 rows" in words.stdout.splitlines()
    assert {result["target"]: result["written"] for result in json.loads(printed.stdout)} == {
        "scout.store_days": 1,
        "scout.product_days": 1,
        **{f"scout_gold.{table}": 1 for table in TABLES},
    }
    assert rows(connection) == expected(connection)


def without_tables(folder: Path) -> Path:
    """Copy the SQL files as they were before these tables."""
    shutil.copytree(SQL, folder)
    shutil.rmtree(folder / "models" / "scout_gold")
    (folder / "migrations" / "100_gold_tables.sql").unlink()
    etl = folder / "models" / "bronze" / "etl_to_production.sql"
    kept = [line for line in etl.read_text().splitlines() if not GOLD_STEP.search(line)]
    etl.write_text(re.sub(r",(\s*\];)", r"\1", "\n".join(kept)))
    return folder


def test_the_sales_that_a_database_holds_already_are_in_the_tables_after_the_next_run(
    empty_database_url: str, tmp_path: Path
) -> None:
    """Which needs no load: the migration makes all of it due."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        migrate(connection, without_tables(tmp_path / "sql"))
        land(connection, [record(number, sale(number, store_id=str(number % 3))) for number in range(1, 8)])
        connection.execute(ETL.encode())
        applied = migrate(connection)
        connection.execute(ETL.encode())

        assert "100_gold_tables" in applied
        assert len(rows(connection)["store_rankings"]) == 3
        assert rows(connection) == expected(connection)


def test_a_days_lines_are_found_by_the_index_in_each_part_of_their_view(connection: psycopg.Connection) -> None:
    """Where a part was added up over all of silver first, a run would cost what is there and not what is new."""
    connection.execute("set enable_seqscan = off")
    plan = connection.execute(
        "explain select sku, sum(revenue) from scout.silver_revenue_lines"
        " where business_day = '2026-01-20' and coalesce(device_id, 'unknown') = 'pi-1' group by sku"
    ).fetchall()

    text = "\n".join(line for (line,) in plan)
    assert text.count("Index Cond: ((COALESCE(device_id, 'unknown'::text) = 'pi-1'::text) AND (business_day =") == 3
    assert "Seq Scan" not in text
