"""What bronze holds reaches silver once, whoever runs the ETL, whenever a load commits, whatever one load breaks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any
from uuid import UUID

import psycopg
import pytest
from landing import EPOCH, Landed, foreign, land, record
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server.etl import CALLS_MAX, run_checks, run_etl

TARGETS = [
    "scout.bronze_edge_raw",
    "scout.bronze_transactions_raw",
    "scout.silver_edge_events",
    "scout.silver_transactions",
    "scout.silver_transaction_items",
    "scout.silver_combo_items",
    "scout.silver_substitutions",
    "scout.dim_store",
    "scout.dim_device",
    "scout.dim_brand",
    "scout.dim_category",
    "scout.dim_sku",
    "scout.dim_date",
    "scout_gold.daily_transactions",
    "scout.store_days",
    "scout_gold.weekly_performance",
    "scout_gold.monthly_trends",
    "scout_gold.store_rankings",
    "scout.product_days",
    "scout_gold.product_insights",
]
ETL = "select * from scout_bronze.etl_to_production();"
COUNTS = """
select 'landing', count(*) from scout_bronze.transactions_raw
union all
select 'edge', count(*) from scout.bronze_edge_raw
union all
select 'transactions', count(*) from scout.bronze_transactions_raw
"""


def sale(number: int, **fields: Any) -> dict[str, Any]:
    """A sale with all that is required, worth `number` pesos."""
    return {
        "transaction_id": f"t-{number}",
        "store_id": "102",
        "timestamp": "2026-01-20T10:30:00+08:00",
        "peso_value": number,
        **fields,
    }


def counts(connection: psycopg.Connection) -> dict[str, int]:
    """How many rows the three bronze tables hold."""
    return dict(connection.execute(COUNTS).fetchall())


def only(connection: psycopg.Connection, query: str) -> Any:
    """The one value that a query returns."""
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def wait_until(connection: psycopg.Connection, query: str) -> None:
    """Poll until a query returns true; fail after 20 s."""
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not only(connection, query):
        assert time.monotonic() < deadline, query
        pause.wait(0.02)


@contextmanager
def poisoned(connection: psycopg.Connection, condition: str) -> Iterator[None]:
    """Make silver refuse sales in a way that no typing function foresees."""
    connection.execute(f"alter table scout.silver_transactions add constraint no_poison check ({condition})".encode())
    yield
    connection.execute("alter table scout.silver_transactions drop constraint no_poison")


def test_the_seeds_monitoring_queries_run_as_they_stand(connection: psycopg.Connection) -> None:
    """Three statements of the seed, and the counts of the three bronze tables agree and are not zero."""
    land(connection, [record(1, sale(1)), record(2, sale(2)), foreign(sale(3))])

    connection.execute("SELECT * FROM scout_bronze.ingestion_status;").fetchall()
    moved = connection.execute("SELECT * FROM scout_bronze.etl_to_production();").fetchall()
    found = connection.execute(
        """
        SELECT 'scout_bronze.transactions_raw' AS table_name, COUNT(*) FROM scout_bronze.transactions_raw
        UNION ALL
        SELECT 'scout.bronze_edge_raw', COUNT(*) FROM scout.bronze_edge_raw
        UNION ALL
        SELECT 'scout.bronze_transactions_raw', COUNT(*) FROM scout.bronze_transactions_raw;
        """
    ).fetchall()

    assert [row[0] for row in moved] == TARGETS
    assert [count for _, count in found] == [3, 3, 3]


def test_each_run_says_what_it_did_to_each_target(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Read, written, already there and refused; a second run finds nothing to do."""
    land(connection, [record(1, sale(1, items=[{"sku": "a"}, {"sku": "b"}])), record(2, sale(2, gender="x"))])

    first, second = run_etl(pool), run_etl(pool)

    assert TARGETS == [result.target for result in first] == [result.target for result in second]
    assert [(result.read, result.written, result.already_there, result.refused) for result in first] == [
        (2, 2, 0, 0)
    ] * 3 + [(2, 2, 0, 1), (2, 2, 0, 0)] + [(0, 0, 0, 0)] * 2 + [(1, 1, 0, 0)] * 2 + [(0, 0, 0, 0)] * 2 + [
        (2, 2, 0, 0),
        (1, 1, 0, 0),
    ] + [(1, 1, 0, 0)] * 5 + [(4, 4, 0, 0)] * 2
    assert {0} == {
        count
        for result in second
        for count in (result.read, result.written, result.already_there, result.refused, result.lag_s)
    }
    assert only(connection, "select count(*) from scout_bronze.loads") == 0


def test_a_load_tried_again_writes_nothing_twice(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A load row that came back, as after a restored table, changes no row."""
    load_id = land(connection, [record(1, sale(1, items=[{"sku": "a"}])), record(2, '{"gender":"x"}')])
    run_etl(pool)
    query = "select md5(string_agg(to_jsonb(s)::text, '' order by raw_id)), count(*) from scout.silver_transactions s"
    before = connection.execute(query).fetchone()

    connection.execute(
        "insert into scout_bronze.loads (load_id, rows) overriding system value values (%s, 2)", (load_id,)
    )
    again = run_etl(pool)

    assert before == connection.execute(query).fetchone()
    assert [result.written for result in again][:4] == [0, 0, 0, 0]
    assert counts(connection) == {"landing": 2, "edge": 2, "transactions": 2}
    assert only(connection, "select count(*) from scout.silver_transaction_items") == 1


def test_two_runs_at_once_move_each_load_once_and_gold_is_right(
    database_url: str, connection: psycopg.Connection
) -> None:
    """The second waits for the first, then sees what it did."""
    land(connection, [record(seq, sale(seq)) for seq in range(1, 11)])
    with (
        psycopg.connect(database_url, autocommit=True) as one,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        results = []
        thread = threading.Thread(target=lambda: results.append(other.execute(ETL).fetchall()))
        with one.transaction():
            first = one.execute(ETL).fetchall()
            thread.start()
            wait_until(connection, "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
            land(connection, [record(seq, sale(seq)) for seq in range(11, 21)])
        thread.join(20)

    assert [first[3][2], results[0][3][2]] == [10, 10]
    assert only(connection, "select sum(revenue) from scout.gold_daily_revenue") == sum(range(1, 21))
    assert counts(connection) == {"landing": 20, "edge": 20, "transactions": 20}


def test_many_runs_at_once_while_loaders_commit_lose_and_double_nothing(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Three threads run the ETL over and over while loads arrive."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                run_etl(pool)
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for load in range(30):
        # Each load corrects a sale of the one before.
        land(connection, [record(load * 2 + 1, sale(load)), record(load * 2 + 2, sale(load - 1, gender="male"))])
    stop.set()
    for thread in threads:
        thread.join(30)
    run_etl(pool)

    assert failures == []
    assert counts(connection) == {"landing": 60, "edge": 60, "transactions": 60}
    assert only(connection, "select count(*) from scout.silver_transactions") == 31
    assert only(connection, "select count(*) from scout.silver_transactions where gender = 'male'") == 30
    assert only(connection, "select sum(revenue) from scout.gold_daily_revenue") == sum(range(30)) - 1


def test_a_transaction_that_commits_late_is_moved_later(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Rows with lower ids than what was moved before are not missed."""
    with psycopg.connect(database_url, autocommit=True) as slow:
        with slow.transaction():
            land(slow, [record(1, sale(1))])
            land(connection, [record(2, sale(2))])
            run_etl(pool)
            assert only(connection, "select count(*) from scout.bronze_edge_raw") == 1
        run_etl(pool)

    assert counts(connection) == {"landing": 2, "edge": 2, "transactions": 2}
    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 3


def test_a_run_cut_off_before_its_commit_is_done_again(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A backend killed in the middle leaves the load due."""
    land(connection, [record(1, sale(1))])
    with psycopg.connect(database_url) as doomed:
        doomed.execute(ETL)
        connection.execute("select pg_terminate_backend(%s)", (doomed.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            doomed.commit()
    wait_until(connection, "select not exists (select from pg_locks where locktype = 'advisory')")
    assert only(connection, "select count(*) from scout.silver_transactions") == 0

    run_etl(pool)

    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 1


def test_a_poisonous_load_is_marked_and_the_others_go_on(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Two of twelve loads raise; ten are moved, and the marks say where and how but quote nothing."""
    loads = [land(connection, [record(n, sale(n)), record(100 + n, sale(100 + n))]) for n in range(1, 13)]

    with poisoned(connection, "transaction_id not in ('t-3', 't-108')"), capture_logs() as logs:
        run_etl(pool)
        marked = connection.execute("select load_id, error from scout_bronze.loads order by 1").fetchall()
        assert [(loads[n], "scout.refresh_silver_transactions raised SQLSTATE 23514") for n in (2, 7)] == marked
        assert only(connection, "select count(*) from scout.silver_transactions") == 20
        assert only(connection, "select count(*) from scout.bronze_edge_raw") == 20
        assert [loads[2], loads[7]] == [entry["load_id"] for entry in logs if entry["event"] == "load_failed"]
        status = connection.execute("select rows_waiting, last_error from scout_bronze.ingestion_status").fetchall()
        assert status == [(4, "scout.refresh_silver_transactions raised SQLSTATE 23514")]

        moved = {result.read for result in run_etl(pool)}
        assert moved == {0}, "a marked load waits an hour before it is tried again"

    connection.execute("update scout_bronze.loads set tried_at = tried_at - interval '61 minutes'")
    run_etl(pool)

    assert only(connection, "select count(*) from scout.silver_transactions") == 24
    assert only(connection, "select count(*) from scout_bronze.loads") == 0


def test_a_failed_load_tried_again_is_marked_again(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """It holds up nothing the second time either."""
    land(connection, [record(1, sale(1))])
    with poisoned(connection, "transaction_id <> 't-1'"):
        run_etl(pool)
        connection.execute("update scout_bronze.loads set tried_at = now() - interval '2 hours'")
        land(connection, [record(2, sale(2))])
        run_etl(pool)

        assert only(connection, "select tried_at > now() - interval '1 hour' from scout_bronze.loads")
        assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 2


def test_a_conflict_with_others_marks_no_load_and_is_tried_again(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """40001 is the caller's to repeat: here it strikes twice, counted by a sequence that no rollback undoes."""
    connection.execute(
        """
        create sequence strikes;
        create function strike() returns trigger language plpgsql as $$
        begin
            if nextval('strikes') <= 2 then
                raise exception 'struck' using errcode = 'serialization_failure';
            end if;
            return new;
        end
        $$;
        create trigger strike before insert on scout.silver_transactions for each row execute function strike();
        """
    )
    land(connection, [record(1, sale(1))])
    pauses: list[float] = []

    run_etl(pool, sleep=pauses.append)

    assert len(pauses) == 2
    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 1


def test_a_step_that_is_broken_for_all_raises_and_marks_nothing(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A deployment without one of its functions is not the loads' fault."""
    connection.execute("drop function scout.refresh_silver_edge_events")
    land(connection, [record(1, sale(1))])

    with pytest.raises(psycopg.errors.UndefinedFunction):
        run_etl(pool)

    assert only(connection, "select count(*) from scout_bronze.loads where error is null") == 1


def test_a_call_is_bounded_and_a_run_goes_on_until_nothing_is_due(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Loads that say they are large are taken two at a time."""
    for seq in range(1, 7):
        land(connection, [record(seq, sale(seq))])
    connection.execute("update scout_bronze.loads set rows = 15000")

    connection.execute(ETL)
    assert only(connection, "select count(*) from scout_bronze.loads") == 4
    run_etl(pool)

    assert only(connection, "select count(*) from scout_bronze.loads") == 0
    assert only(connection, "select count(*) from scout.silver_transactions") == 6 < CALLS_MAX


def test_the_lag_is_that_of_the_oldest_load_left(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A load that can't be moved makes the lag grow."""
    land(connection, [record(1, sale(1))])
    connection.execute("update scout_bronze.loads set committed_at = now() - interval '90 seconds'")

    with poisoned(connection, "transaction_id <> 't-1'"):
        lags_s = {result.lag_s for result in run_etl(pool)}

    assert len(lags_s) == 1
    assert 90 <= lags_s.pop() < 600


def test_an_older_snapshot_is_refused(connection: psycopg.Connection) -> None:
    """Two runs in REPEATABLE READ would leave silver wrong for good."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"), connection.transaction():
        connection.execute(ETL)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (r'{"transaction_id":"t-1","peso_value":9,"note":"\u0000"}', r"holds \u0000, which the database can't"),
        (r'{"transaction_id":"t-1","\u0000":1}', r"holds \u0000, which the database can't"),
        ('{"transaction_id":"t-1","peso_value":1e-400000}', "holds a number the database can't"),
        ('{"transaction_id":"t-1","peso_value":0.' + "0" * 20_000 + "1}", "holds a number the database can't"),
        ("[1]", "not a JSON object"),
        ("{broken", "not JSON the database can hold"),
    ],
)
def test_a_payload_that_jsonb_refuses_is_moved_with_its_text(
    pool: ConnectionPool, connection: psycopg.Connection, payload: str, reason: str
) -> None:
    """The row is in both tables and in silver, its neighbour is typed, and a rejection says why."""
    land(connection, [record(1, payload), record(2, sale(2))])

    run_etl(pool)

    held = connection.execute(
        "select edge.payload is null, transactions.payload is null, edge.payload_text, transactions.payload_text"
        " from scout.bronze_edge_raw edge join scout.bronze_transactions_raw transactions using (raw_id)"
        " order by raw_id"
    ).fetchall()
    assert held == [(True, True, payload, payload), (False, False, None, None)]
    assert [("payload", reason)] == connection.execute("select field, reason from scout.silver_rejections").fetchall()
    assert only(connection, "select count(*) from scout.silver_transactions") == 2
    assert [
        row[0] for row in connection.execute("select is_readable from scout.silver_edge_events order by raw_id")
    ] == [False, True]
    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 2
    assert {0} == {result.contradictions for result in run_checks(pool)}


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("together", [True, False])
def test_forks_are_found_whichever_of_their_records_commits_first(
    pool: ConnectionPool, connection: psycopg.Connection, order: tuple[int, ...], together: bool
) -> None:
    """Three ids at one seq are two forks of the first, in any order, moved one by one or at once."""
    for number in order:
        row = record(7, {"store_id": "1", "peso_value": number}, id=UUID(int=number))
        land(connection, [row, record(number + 10, sale(number))])
        if not together:
            run_etl(pool)
    run_etl(pool)

    forks = connection.execute(
        "select device_id, epoch, seq, id, first_id from scout_bronze.forks order by id"
    ).fetchall()
    assert [("pi-1", EPOCH, 7, UUID(int=number), UUID(int=1)) for number in (2, 3)] == forks
    assert only(connection, "select sum(peso_value) from scout.silver_transactions") == 12
    assert {0} == {result.contradictions for result in run_checks(pool)}


def test_a_fork_whose_records_commit_while_neither_sees_the_other_is_found(
    database_url: str, pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Both transactions are open at once; the one that ends last is looked at last."""
    rows = [Landed('{"a":1}', seq=7, id=UUID(int=n)) for n in (1, 2)]
    with (
        psycopg.connect(database_url, autocommit=True) as one,
        psycopg.connect(database_url, autocommit=True) as other,
        one.transaction(),
    ):
        land(one, rows[:1])
        land(other, rows[1:])
        run_etl(pool)
        assert only(connection, "select count(*) from scout_bronze.forks") == 0
    run_etl(pool)

    assert only(connection, "select id from scout_bronze.forks") == UUID(int=2)


def test_devices_of_one_till_are_one_source(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Two devices that an operator joined tell of one sale; two that are not joined, of two."""
    connection.execute(
        "insert into scout_edge.devices (device_id, source) values ('pi-1', 'till-9'), ('pi-2', 'till-9')"
    )
    land(connection, [record(n, sale(1), device_id=f"pi-{n}") for n in (1, 2, 3, 4)])

    run_etl(pool)

    found = connection.execute("select source_id, device_id from scout.silver_transactions order by 1").fetchall()
    assert found == [("pi-3", "pi-3"), ("pi-4", "pi-4"), ("till-9", "pi-2")]


def test_the_status_shows_each_device_with_its_files_and_rows(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Counted by the ledger, with what waits and the last error, also for devices that never delivered."""
    connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-0', 'till-0')")
    load_id = land(connection, [record(1, sale(1)), record(2, sale(2))])
    connection.execute(
        """
        insert into scout_bronze.files (
            bucket, key, device_id, state, loaded_at, load_id, accepted, duplicates, rejected, reason
        ) values
            ('b', 'k1', 'pi-1', 'loaded', now(), %s, 2, 1, 1, null),
            ('b', 'k2', 'pi-1', 'loaded', now() - interval '30 minutes', null, 3, 0, 0, null),
            ('b', 'k3', 'pi-1', 'loaded', now() - interval '3 days', null, 5, 0, 0, null),
            ('b', 'k4', 'pi-1', 'quarantined', null, null, null, null, null, 'the gzip is cut off'),
            ('b', 'k5', 'pi-1', 'found', null, null, null, null, null, null)
        """,
        (load_id,),
    )
    query = """
        select device_id, source, files_waiting, files_loaded, files_quarantined, rows_loaded, rows_duplicate,
            rows_refused, rows_last_minute, rows_last_hour, rows_last_day, rows_waiting,
            lag > interval '0', first_loaded_at < last_loaded_at, last_error
        from scout_bronze.ingestion_status
    """

    before = connection.execute(query).fetchall()
    run_etl(pool)
    after = connection.execute(query).fetchall()

    idle = ("pi-0", "till-0", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, False, None, None)
    counted = ("pi-1", "pi-1", 1, 3, 1, 10, 1, 1, 2, 5, 5)
    assert [idle, (*counted, 2, True, True, "the gzip is cut off")] == before
    assert [idle, (*counted, 0, False, True, "the gzip is cut off")] == after


WRONGS = {
    "production": "delete from scout.bronze_edge_raw where seq = 1",
    "production_agreement": "delete from scout.bronze_transactions_raw where seq = 1",
    "forks": "delete from scout_bronze.forks",
    "retired": "insert into scout_bronze.retired values ('pi-1', '00000000000000aa', '{[99,99]}')",
    "silver_edge_events": "delete from scout.silver_edge_events where seq = 1",
    "silver_transactions": "delete from scout.silver_transactions where seq = 2",
    "silver_transaction_versions": "update scout.silver_transactions set voided_at = now()",
    "silver_transaction_items": "delete from scout.silver_transaction_items where line_number = 1",
    "silver_combo_items": "delete from scout.silver_combo_items where line_number = 1",
    "silver_substitutions": "update scout.silver_substitutions set raw_id = raw_id + 1",
    "silver_rejections": "delete from scout.silver_rejections",
    "dim_store": "update scout.dim_store set region = 'elsewhere'",
    "dim_device": "update scout.dim_device set store_id = '103'",
    "dim_brand": "delete from scout.dim_brand where brand_name = 'Puro'",
    "dim_category": "delete from scout.dim_category where product_category = 'beverages'",
    "dim_sku": "update scout.dim_sku set product_name = 'Soda' where sku = 'a'",
    "dim_date": "delete from scout.dim_date",
    "gold_grain": (
        "drop view scout.gold_data_quality;"
        " create view scout.gold_data_quality as"
        " select 'sales'::text as measure, ''::text as field from generate_series(1, 2)"
    ),
    "gold_revenue": (
        "alter view scout.gold_executive_kpis rename column revenue to told;"
        " alter view scout.gold_executive_kpis rename column units to revenue"
    ),
    "store_days": "update scout.store_days set customers = '{nobody}'",
    "product_days": "insert into scout.product_growth values ('a', 1, 1, 1)",
    "scout_gold_daily_transactions": "update scout_gold.daily_transactions set largest_sale = null",
    "scout_gold_weekly_performance": "update scout_gold.weekly_performance set growth_percent = 1",
    "scout_gold_monthly_trends": "update scout_gold.monthly_trends set revenue_month_before = 0",
    "scout_gold_store_rankings": "delete from scout_gold.store_rankings",
    "scout_gold_product_insights": "update scout_gold.product_insights set last_day = last_day + 1",
}


@pytest.mark.parametrize("check", WRONGS)
def test_each_check_is_silent_while_all_is_well_and_finds_what_it_is_for(
    pool: ConnectionPool, connection: psycopg.Connection, check: str
) -> None:
    """A check that can't fail proves nothing."""
    said = {
        "items": [{"sku": "a", "brand_name": "Puro", "product_category": "beverages"}, {"sku": "b"}],
        "combo_basket": [{"sku": "a"}, {"sku": "b"}],
        "substitution_event": {"occurred": False},
    }
    land(connection, [record(1, sale(1, **said)), record(2, {"peso_value": 2})])
    land(connection, [record(2, sale(5)), foreign(sale(6))])
    run_etl(pool)

    right = {result.check: result.contradictions for result in run_checks(pool)}
    connection.execute(WRONGS[check].encode())
    wrong = {result.check: result.contradictions for result in run_checks(pool)}

    assert WRONGS.keys() <= right.keys()
    assert not any(right.values())
    assert wrong[check] > 0
