"""Migrating the deployment that scout-edge continues: what was there is listed, moved aside or adopted."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from programs import scout_server

from server.clashes import made_by
from server.database import SQL
from server.errors import Misconfigured
from server.schema import migrate, plan

OLD = Path(__file__).with_name("old_deployment.sql").read_text()
EVERYTHING = "select count(*) from pg_class where relnamespace::regnamespace::text not like 'pg_%'"
TABLES = ("scout.bronze_edge_raw", "scout.bronze_transactions_raw")


@pytest.fixture
def old(empty_database_url: str) -> Iterator[psycopg.Connection]:
    """Connect to a database with the old deployment in it."""
    with psycopg.connect(empty_database_url, autocommit=True) as opened:
        opened.execute(OLD)
        yield opened


def value(connection: psycopg.Connection, query: str) -> object:
    """Return the one value that a query gives."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_every_clash_is_listed_and_nothing_is_changed(old: psycopg.Connection) -> None:
    """With kind and columns, so that an operator can judge."""
    before = value(old, EVERYTHING)

    with pytest.raises(Misconfigured) as refused:
        migrate(old)

    lines = str(refused.value).splitlines()
    assert lines[1].startswith("  table scout.silver_transactions (id bigint, store_id bigint, payment_method ")
    assert lines[2:-1] == [
        "  table scout.dim_store (id bigint, name text)",
        "  materialized view scout.gold_txn_daily (transactions bigint)",
    ]
    assert "--move-aside" in lines[-1]
    assert value(old, EVERYTHING) == before


def test_what_is_in_the_way_is_moved_with_all_that_it_holds(old: psycopg.Connection) -> None:
    """Views that stand on it go on working; ours take its place."""
    migrate(old, move_aside=True)

    assert value(old, "select peso_value from scout_before.silver_transactions") == 150.50
    assert value(old, "select transactions from scout_gold.daily_transactions") == 1
    assert value(old, "select count(*) from scout.silver_transactions") == 0
    assert value(old, "select count(*) from scout.gold_txn_daily") == 0
    assert migrate(old) == ()


def test_bronze_is_adopted_without_rewriting_a_row(old: psycopg.Connection) -> None:
    """Each row stays where it lies on the disk, under its own number; what comes next gets the next one."""
    places = {table: old.execute(f"select ctid, xmin, * from {table} order by 3").fetchall() for table in TABLES}  # noqa: S608

    migrate(old, move_aside=True)

    for table, before in places.items():
        width = len(before[0])
        after = [row[:width] for row in old.execute(f"select ctid, xmin, * from {table} order by 3")]  # noqa: S608
        assert len(after) >= 4
        assert after == before
    query = "insert into scout.bronze_transactions_raw (payload) values ('{}') returning ingest_id, processed"
    assert old.execute(query).fetchone() == (1741, True)


def test_adopted_rows_are_one_load_and_flow_on_to_gold(old: psycopg.Connection) -> None:
    """Each sale once, though two rows of one lie in bronze; a second run finds nothing left to do."""
    migrate(old, move_aside=True)
    loads = old.execute("select rows from scout_bronze.loads").fetchall()
    old.execute("select * from scout_bronze.etl_to_production()")
    again = old.execute("select sum(rows_read) from scout_bronze.etl_to_production()").fetchone()

    assert loads == [(1744,)]
    assert value(old, "select count(*) from scout_bronze.loads") == 0
    assert value(old, "select count(*) from scout.silver_transactions") == 1739
    assert value(old, "select count(distinct raw_id) from scout.silver_transactions") == 1739
    assert value(old, "select count(*) from scout.silver_edge_events") == 4
    assert value(old, "select transactions from scout.gold_txn_daily where business_day = '2026-01-20'") == 1739
    assert again == (0,)


def test_adopted_rows_are_typed_again_when_asked(old: psycopg.Connection) -> None:
    """They have no number of the landing table, and are found all the same."""
    migrate(old, move_aside=True)
    old.execute("select * from scout_bronze.etl_to_production()")
    old.execute("update scout.silver_transactions set peso_value = 0")
    old.execute("update scout.silver_edge_events set transaction_id = 'wrong'")
    assert value(old, "select scout.type_again()") == 1740

    done = old.execute("select target, rows_written from scout_bronze.etl_to_production()").fetchall()

    assert dict(done)["scout.silver_transactions"] == value(
        old, "select count(*) from scout.silver_transactions where peso_value <> 0"
    )
    assert value(old, "select min(peso_value) from scout.silver_transactions") > 0
    assert value(old, "select count(*) from scout.silver_edge_events where transaction_id = 'wrong'") == 0
    assert dict(done)["scout.silver_edge_events"] == value(old, "select count(*) from scout.silver_edge_events") > 0


def test_new_sales_join_the_adopted_ones(old: psycopg.Connection) -> None:
    """A later load moves into the same tables, next to the old rows."""
    migrate(old, move_aside=True)
    old.execute("insert into scout_bronze.loads (rows) values (1)")
    old.execute(
        "insert into scout_bronze.transactions_raw (load_id, device_id, identity, payload, object_key, line) "
        "select max(load_id), 'pi-05', 'x', '{\"transaction_id\": \"new-1\"}', 'k', 1 from scout_bronze.loads"
    )
    old.execute("select * from scout_bronze.etl_to_production()")

    assert value(old, "select count(*) from scout.bronze_transactions_raw") == 1741
    assert value(old, "select count(*) from scout.silver_transactions where transaction_id = 'new-1'") == 1
    assert value(old, "select count(*) from scout.silver_transactions") == 1740


def test_a_bronze_table_of_another_shape_is_a_clash(old: psycopg.Connection) -> None:
    """Taken over is only what can be read as what it was."""
    old.execute("alter table scout.bronze_edge_raw alter column payload type text")

    assert next(clash.name for clash in plan(old).clashes) == "scout.bronze_edge_raw"


def test_a_name_taken_in_scout_before_moves_nothing(old: psycopg.Connection) -> None:
    """All of it is one transaction."""
    old.execute("create schema scout_before create table gold_txn_daily ()")

    with pytest.raises(Misconfigured, match=r"\"gold_txn_daily\" already exists in schema"):
        migrate(old, move_aside=True)
    assert value(old, "select to_regclass('scout_before.silver_transactions') is null") is True


def test_a_function_of_ours_that_another_wrote_is_a_clash(empty_database_url: str) -> None:
    """`create or replace` would have replaced it silently."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create function public.heartbeat(jsonb) returns jsonb language sql as 'select $1'")

        clashes = plan(connection).clashes
        migrate(connection, move_aside=True)

        assert [(clash.name, clash.kind, clash.columns) for clash in clashes] == [
            ("public.heartbeat", "function", "jsonb")
        ]
        assert value(connection, "select scout_before.heartbeat('1')") == 1


def test_an_own_view_on_one_of_ours_is_named_and_kept(connection: psycopg.Connection) -> None:
    """An analyst's view stops the upgrade of what it stands on; it is never dropped for it."""
    connection.execute("create view public.mine as select transactions from scout.gold_txn_daily")
    connection.execute("update scout_edge.models set checksum = 'older' where name = 'gold/txn_daily'")

    with pytest.raises(Misconfigured, match=r"gold/txn_daily can't be replaced.*view mine"):
        migrate(connection)
    assert value(connection, "select count(*) from public.mine") == 0


def test_all_that_the_files_make_is_looked_for(connection: psycopg.Connection) -> None:
    """What a fresh database holds after migrating is exactly what the files are read to make."""
    texts = [path.read_text() for path in sorted(SQL.glob("m*/**/*.sql"))]
    read = {pair for text in texts for pair in made_by(text)}
    there = set(
        connection.execute(
            """
            select
                case relkind
                    when 'v' then 'view' when 'm' then 'materialized view' when 'c' then 'type' else 'table'
                end,
                relnamespace::regnamespace || '.' || relname
            from pg_class
            where relkind in ('r', 'v', 'm', 'c')
                and relnamespace::regnamespace::text in ('scout', 'scout_gold', 'scout_bronze', 'scout_edge', 'public')
            union
            select 'function', pronamespace::regnamespace || '.' || proname
            from pg_proc
            where pronamespace::regnamespace::text in ('scout', 'scout_gold', 'scout_bronze', 'scout_edge', 'public')
            """
        ).fetchall()
    )

    assert len(read) > 40
    assert there == read


def test_a_dry_run_prints_the_sql_and_changes_nothing(empty_database_url: str) -> None:
    """All of it, in order, fit to be read or run by hand."""
    done = scout_server("migrate", "--dry-run", "--database-url", empty_database_url)

    assert done.returncode == 0
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        assert value(connection, "select to_regclass('scout_edge.devices') is null") is True
        connection.execute(done.stdout.encode())
        assert value(connection, "select count(*) from scout.gold_txn_daily") == 0
