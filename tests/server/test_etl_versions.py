"""Silver keeps every version of a sale once, the latest in its place, whatever arrived when and is typed again."""

import json
from itertools import permutations
from typing import Any

import psycopg
import pytest
from landing import Landed, foreign, land, record
from programs import scout_server
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from test_etl import only, sale

from server.etl import run_checks, run_etl, type_again
from server.schema import migrate

VERSIONS = [
    record(1, sale(1, transaction_id="t", items=[{"sku": "a"}, {"sku": "b"}])),
    record(2, sale(2, transaction_id="t", items=[{"sku": "c"}], gender="odd")),
    record(3, sale(3, transaction_id="t", status="void")),
    record(4, sale(4, transaction_id="t", items=[{"sku": "d"}])),
]


def rows(connection: psycopg.Connection, query: str) -> list[dict[str, Any]]:
    """What a query returns, by names."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def silver(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that silver says, but for what numbers its rows."""
    columns = (
        "source_id, transaction_key, transaction_id, device_id, seq, captured_at, version_at, store_id, sold_at,"
        " business_day, business_hour, peso_value, gender, customer_id, status, revision, voided_at"
    )
    queries = {
        "latest": "select {} from scout.silver_transactions order by 1, 2",
        "earlier": "select {} from scout.silver_transaction_versions order by 1, 2, 5, 6, 12",
        "items": "select source_id, transaction_key, line_number, sku from scout.silver_transaction_items"
        " order by 1, 2, 3",
        "refused": "select seq, identity, field, reason from scout.silver_rejections"
        " join scout.bronze_transactions_raw using (raw_id) order by 1, 2, 3",
        "events": "select seq, transaction_id, store_id, event_at from scout.silver_edge_events order by 1, 2, 4",
    }
    return {
        name: connection.execute(query.replace("{}", columns).encode()).fetchall() for name, query in queries.items()
    }


def check(pool: ConnectionPool) -> None:
    """Every check is silent."""
    assert {result.contradictions for result in run_checks(pool)} == {0}


def arrive(pool: ConnectionPool, connection: psycopg.Connection, *landed: Landed) -> None:
    """One load, and a run of the ETL."""
    land(connection, landed)
    run_etl(pool)


@pytest.mark.parametrize("order", list(permutations(range(len(VERSIONS)))))
def test_versions_are_ranked_in_any_order_of_arrival(
    pool: ConnectionPool, connection: psycopg.Connection, order: tuple[int, ...]
) -> None:
    """The latest is the sale with its items, a void that was taken back is history; one arrives twice."""
    for place in order:
        arrive(pool, connection, VERSIONS[place])
    connection.execute("insert into scout_bronze.loads (load_id, rows) overriding system value values (1, 1)")
    run_etl(pool)

    (latest,) = rows(connection, "select peso_value, status, voided_at from scout.silver_transactions")
    earlier = rows(
        connection, "select peso_value, status, voided_at from scout.silver_transaction_versions order by seq"
    )
    assert latest == {"peso_value": 4, "status": None, "voided_at": None}
    assert earlier == [
        {"peso_value": 1, "status": None, "voided_at": None},
        {"peso_value": 2, "status": None, "voided_at": None},
        {"peso_value": 3, "status": "void", "voided_at": VERSIONS[2].captured_at},
    ]
    assert only(connection, "select string_agg(sku, ',') from scout.silver_transaction_items") == "d"
    assert only(connection, "select string_agg(field, ',') from scout.silver_rejections") == "gender"
    check(pool)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_void_stays_with_when_it_was_voided(
    pool: ConnectionPool, connection: psycopg.Connection, order: tuple[int, ...]
) -> None:
    """The sale is there, marked, and gold leaves it out."""
    for place in order:
        arrive(pool, connection, VERSIONS[place])

    (latest,) = rows(connection, "select status, voided_at, version_at from scout.silver_transactions")
    assert latest == {"status": "void", "voided_at": latest["version_at"], "version_at": VERSIONS[2].captured_at}
    assert only(connection, "select voided from scout.gold_executive_kpis") == 1
    assert only(connection, "select transactions from scout.gold_executive_kpis") == 0
    check(pool)


def test_a_text_that_comes_in_two_records_is_two_versions(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Each row of bronze is one version of one sale, the same text or not."""
    said = sale(1)
    arrive(pool, connection, record(1, said), record(2, said))

    assert only(connection, "select seq from scout.silver_transactions") == 2
    assert only(connection, "select seq from scout.silver_transaction_versions") == 1
    check(pool)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_revision_counts_before_the_clock(
    pool: ConnectionPool, connection: psycopg.Connection, order: tuple[int, ...]
) -> None:
    """Where an operator says in which field the till counts; a version without one is the lowest."""
    connection.execute(
        "insert into scout.dialect (part, field, preference, path) values ('sale', 'revision', 1, '{v}')"
    )
    said = [({"v": 3}, 1), ({"v": "10"}, 2), ({"v": 9}, 3), ({}, 4)]
    landed = [record(seq, sale(seq, transaction_id="t", **fields)) for fields, seq in said]
    for place in order:
        arrive(pool, connection, landed[place])

    assert rows(connection, "select seq, revision from scout.silver_transactions") == [{"seq": 2, "revision": 10}]
    assert only(connection, "select count(*) from scout.silver_transaction_versions") == 3
    check(pool)


def test_a_revision_mapped_afterwards_moves_versions_when_all_is_typed_again(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Nothing changes until the operator asks for it; then the version with the highest one brings its items."""
    arrive(
        pool,
        connection,
        record(1, sale(1, transaction_id="t", v=2, items=[{"sku": "a"}])),
        record(2, sale(2, transaction_id="t", v=1, items=[{"sku": "b"}])),
    )
    connection.execute(
        "insert into scout.dialect (part, field, preference, path) values ('sale', 'revision', 1, '{v}')"
    )
    run_etl(pool)
    assert only(connection, "select seq from scout.silver_transactions") == 2

    assert type_again(pool) == 2
    run_etl(pool)

    assert only(connection, "select seq from scout.silver_transactions") == 1
    assert only(connection, "select sku from scout.silver_transaction_items") == "a"
    check(pool)


@pytest.mark.parametrize("chunk", [1, 2, 20000])
def test_typed_again_in_any_chunks_silver_is_as_if_it_had_always_been_read_so(
    pool: ConnectionPool, connection: psycopg.Connection, chunk: int
) -> None:
    """A till's id is found elsewhere from now on: what were versions of one sale are sales, and the other way round."""
    said = [
        sale(1, transaction_id="t", bill="b-1", items=[{"sku": "a"}]),
        sale(2, transaction_id="t", bill="b-2", items=[{"sku": "b"}]),
        sale(3, transaction_id="u", bill="b-1", items=[{"sku": "c"}, {"sku": "d"}]),
        sale(4, transaction_id="v", bill="b-3", gender="odd"),
        sale(5, transaction_id="w", items=[{"sku": "e"}]),
    ]
    landed = [*(record(seq, one) for seq, one in enumerate(said, start=1)), foreign(sale(6, bill="b-3"))]
    arrive(pool, connection, *landed)
    before = silver(connection)
    connection.execute("update scout.dialect set path = '{bill}' where field = 'transaction_id' and preference = 1")
    type_again(pool)
    cut_into(connection, chunk)
    run_etl(pool)
    again = silver(connection)
    check(pool)

    for table in ("transactions", "transaction_versions", "transaction_items", "edge_events", "rejections"):
        connection.execute(f"truncate scout.silver_{table}".encode())
    type_again(pool)
    run_etl(pool)

    assert again == silver(connection)
    assert [len(again[name]) for name in ("latest", "earlier", "items")] == [4, 2, 4]
    assert before != again


def cut_into(connection: psycopg.Connection, chunk: int) -> None:
    """Make of the one range that waits ranges of so many rows."""
    connection.execute(
        "with waiting as (delete from scout_bronze.loads where first_raw_id is not null returning *)"
        " insert into scout_bronze.loads (rows, first_raw_id, last_raw_id)"
        " select 1, first, least(first + %(chunk)s - 1, last_raw_id)"
        " from waiting cross join lateral generate_series(first_raw_id, last_raw_id, %(chunk)s) as first",
        {"chunk": chunk},
    )


def test_nothing_is_written_where_typing_again_changes_nothing(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Gold follows what is written: a row that says the same is left alone."""
    arrive(pool, connection, *VERSIONS, record(5, sale(5)))
    query = (
        "select 'latest', xmin::text, ctid::text from scout.silver_transactions union all"
        " select 'earlier', xmin::text, ctid::text from scout.silver_transaction_versions order by 1, 3"
    )
    before = connection.execute(query.encode()).fetchall()
    type_again(pool)
    done = {result.target: result for result in run_etl(pool)}

    assert before == connection.execute(query.encode()).fetchall()
    assert len(before) == 5
    assert (done["scout.silver_transactions"].read, done["scout.silver_transactions"].written) == (5, 0)


def test_new_sales_are_typed_before_rows_that_are_typed_again(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Somebody waits for them; and what waits to be typed again is no lag."""
    arrive(pool, connection, *VERSIONS)
    type_again(pool)
    land(connection, [record(9, sale(9))])

    first = connection.execute("select first_raw_id from scout_bronze.due_loads order by place").fetchall()

    assert [first_raw_id is None for (first_raw_id,) in first] == [True, False]


def test_rows_to_be_typed_again_come_in_calls_of_their_own(connection: psycopg.Connection) -> None:
    """Ranges side by side of 20,000 rows at most: what was adopted first, what waits already left out."""
    connection.execute("insert into scout.bronze_transactions_raw (payload) select '{}' from generate_series(1, 25000)")
    connection.execute(
        "insert into scout.bronze_transactions_raw (payload, raw_id, load_id)"
        " select '{}', n, n % 2 from generate_series(1, 40000) as n"
    )
    connection.execute("insert into scout_bronze.loads (load_id, rows) overriding system value values (0, 20000)")

    queued = [connection.execute("select scout.type_again()").fetchone() for _ in range(2)]

    assert queued == [(45000,)] * 2
    ranges = connection.execute(
        "select rows, first_raw_id, last_raw_id from scout_bronze.loads where first_raw_id is not null order by 2"
    ).fetchall()
    assert ranges == [(20000, -25000, -5001), (20000, -5000, 29999), (5000, 30001, 39999)]


def test_an_upgrade_types_again_what_earlier_models_typed(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """They knew no versions, no revision and no void's time; once it is done, migrating again does nothing."""
    arrive(pool, connection, *VERSIONS[:3], record(9, sale(9)))
    right = silver(connection)
    connection.execute("truncate scout.silver_transaction_versions")
    connection.execute("update scout.silver_transactions set voided_at = null, business_hour = 0")
    connection.execute("update scout.typing set version = 0")
    connection.execute("update scout_edge.models set checksum = 'of earlier text' where name = 'silver/typing'")

    applied = migrate(connection)
    run_etl(pool)

    assert "silver/typing" in applied
    assert right == silver(connection)
    assert migrate(connection) == ()
    assert only(connection, "select count(*) from scout_bronze.loads") == 0
    check(pool)


def test_the_command_types_again_what_is_there(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """`scout-server etl --again` reads every row once more and says so."""
    arrive(pool, connection, record(1, sale(1)), record(2, sale(2)))
    connection.execute("update scout.silver_transactions set peso_value = 0")

    told = scout_server("etl", "--again", "--json", "--database-url", database_url)

    assert told.returncode == 0
    assert "2 rows" in told.stderr
    assert [
        moved["written"] for moved in json.loads(told.stdout) if moved["target"] == "scout.silver_transactions"
    ] == [2]
    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 3
