"""How long sales took, as the system measures it itself: each row once, when it is new, wherever it is shown."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from deliveries import DAY, DEVICE, batch, foreign, jsonl_of, name_of, posted, put_batch
from deliveries import record as sealed
from endpoints import Endpoints, bearer, running
from landing import MORNING, Landed, land, record
from landing import foreign as uploaded
from programs import scout_server
from psycopg_pool import ConnectionPool

from server import importing, operator, quarantine, tokens
from server.bronze import store
from server.buckets.folder import FolderBucket
from server.database import transact
from server.etl import run_etl
from server.loader import load
from server.standing import Lag
from wire.record import to_line

BOUNDS_S = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600)
"""Those below an hour."""


def lags(connection: psycopg.Connection, kind: str, device_id: str = "pi-1") -> Counter[int]:
    """How many rows of a device have a lag below each bound."""
    query = "select below_s, sum(rows)::int from scout_bronze.lags where kind = %s and device_id = %s group by below_s"
    return Counter(dict(connection.execute(query, [kind, device_id]).fetchall()))


def waited(connection: psycopg.Connection, load_id: int, seconds: float) -> None:
    """Let a load have been committed so long ago."""
    connection.execute(
        "update scout_bronze.loads set committed_at = now() - %s * interval '1 second' where load_id = %s",
        [seconds, load_id],
    )


def received(connection: psycopg.Connection, load_id: int, *ages_s: float) -> None:
    """Let the rows of a load have been received so long after they were captured, by their seq."""
    for seq, age_s in enumerate(ages_s, start=1):
        connection.execute(
            "update scout_bronze.transactions_raw set ingested_at = captured_at + %s * interval '1 second'"
            " where load_id = %s and seq = %s",
            [age_s, load_id, seq],
        )


def test_each_row_is_counted_once_from_its_commit_to_gold(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """In the bucket of its load's wait; what is moved again later isn't counted again."""
    waited(connection, land(connection, [record(1, {"n": 1}), record(2, {"n": 2})]), 100.0)
    waited(connection, land(connection, [record(1, {"n": 3}, device_id="pi-2")]), 3000.0)
    again = land(connection, [record(3, {"n": 4})])
    waited(connection, again, 50 * 365 * 86_400.0)

    run_etl(pool)
    before = lags(connection, "etl")
    connection.execute("insert into scout_bronze.loads (load_id, rows) overriding system value values (%s, 1)", [again])
    run_etl(pool)

    assert before == lags(connection, "etl") == {120: 2, 315_360_000: 1}
    assert lags(connection, "etl", "pi-2") == {3600: 1}


def test_a_load_that_failed_is_measured_once_it_is_moved(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """And not by the tries before."""
    connection.execute(
        "create function stumble() returns trigger language plpgsql as"
        " $$ begin raise exception using errcode = 'P0001'; end $$;"
        "create trigger stumble before insert on scout.silver_edge_events for each row when (new.seq = 2)"
        " execute function stumble()"
    )
    land(connection, [record(1, {"n": 1})])
    poisonous = land(connection, [record(2, {"n": 2})])
    run_etl(pool)
    assert lags(connection, "etl").total() == 1

    connection.execute("drop trigger stumble on scout.silver_edge_events")
    connection.execute("update scout_bronze.loads set tried_at = now() - interval '2 hours'")
    waited(connection, poisonous, 7000.0)
    run_etl(pool)

    assert lags(connection, "etl")[21_600] == 1
    assert lags(connection, "etl").total() == 2


def test_capture_lag_is_how_old_the_sale_was_when_it_arrived(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """By the corrected time; a clock ahead of ours counts as no lag, and where no time is known nothing is said."""
    connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-1', 'pi-1')")
    connection.execute("insert into scout_edge.boots values ('pi-1', 'measured', %s, 5)", [MORNING])
    wrong = MORNING - timedelta(days=9000)
    load_id = land(
        connection,
        [
            record(1, {"n": 1}),
            record(2, {"n": 2}),
            record(3, {"n": 3}, clock="unsynced", boot="measured", mono_ms=60_000, captured_at=wrong),
            record(4, {"n": 4}, clock="unsynced", boot="not measured", captured_at=wrong),
            uploaded({"n": 5}),
        ],
    )
    received(connection, load_id, 1.5, -30.0)
    connection.execute(
        "update scout_bronze.transactions_raw set ingested_at = %s where seq > 2", [MORNING + timedelta(seconds=100)]
    )

    run_etl(pool)

    assert lags(connection, "capture") == {1: 1, 2: 1, 45: 1}
    assert lags(connection, "etl").total() == 5


def test_rows_that_are_typed_again_are_no_lag(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """A boot that is measured late makes its rows due again: they were in gold long before."""
    connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-1', 'pi-1')")
    land(connection, [record(1, {"n": 1}, clock="unsynced", boot="b", mono_ms=1)])
    run_etl(pool)
    before = connection.execute("select * from scout_bronze.lags").fetchall()

    connection.execute(
        "select scout_edge.note_boots('pi-1', jsonb_build_array(jsonb_build_object('boot', 'b', 'zero_at',"
        " '2026-01-20T08:00:00.000Z', 'error_ms', 10)))"
    )
    connection.execute("update scout_bronze.loads set committed_at = now() - interval '3 hours'")
    run_etl(pool)

    assert connection.execute("select captured_at from scout.silver_edge_events").fetchall() != [(MORNING,)]
    assert connection.execute("select * from scout_bronze.lags").fetchall() == before


def test_the_p95_is_the_bound_that_95_of_100_rows_are_below(connection: psycopg.Connection) -> None:
    """Of each device and of all together, of the hour and of the day; what is older counts no more."""
    counts = {
        ("pi-1", 0): {5: 94, 10: 1, 60: 5},
        ("pi-1", 20): {600: 30},
        ("pi-1", 30): {86_400: 1000},
        ("pi-2", 1): {2: 900, 120: 100},
    }
    for (device_id, hours), buckets in counts.items():
        for below_s, rows in buckets.items():
            connection.execute(
                "insert into scout_bronze.lags values"
                " (date_trunc('hour', now(), 'UTC') - %s * interval '1 hour', %s, 'etl', %s, %s)",
                [hours, device_id, below_s, rows],
            )
    found = {
        row[0]: row[1:]
        for row in connection.execute(
            "select device_id, rows_last_hour, rows_last_day, p95_last_hour_s, p95_last_day_s"
            " from scout_bronze.device_lags where kind = 'etl'"
        )
    }

    def p95(*buckets: dict[int, int]) -> int:
        told = sorted(below_s for bucket in buckets for below_s, rows in bucket.items() for _ in range(rows))
        return told[-(-len(told) * 95 // 100) - 1]

    now_1, day_1, _, now_2 = counts.values()
    assert found == {
        "pi-1": (100, 130, p95(now_1), p95(now_1, day_1)),
        "pi-2": (1000, 1000, p95(now_2), p95(now_2)),
        None: (1100, 1130, p95(now_1, now_2), p95(now_1, day_1, now_2)),
    }
    assert [found[None][2], found["pi-1"][2]] == [120, 10]


def test_hours_of_more_than_eight_days_ago_are_removed(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """By the ETL that measures, in passing; no others."""
    connection.execute(
        "insert into scout_bronze.lags select date_trunc('hour', now(), 'UTC') - hours * interval '1 hour', 'pi-0',"
        " 'etl', 5, 1 from unnest('{1,192,193,500}'::int[]) hours"
    )
    land(connection, [record(1, {"n": 1})])
    run_etl(pool)

    kept = "select extract(epoch from date_trunc('hour', now(), 'UTC') - hour)::int / 3600 from scout_bronze.lags"
    found = [hours for (hours,) in connection.execute(kept + " where device_id = 'pi-0' order by 1")]
    assert found == [1, 192]


def every_way(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """Sales by each way that leads to bronze."""
    bucket.folder.mkdir(exist_ok=True)
    put_batch(bucket, range(1, 6))
    bucket.put_new(f"{DAY}/{DEVICE}/data.jsonl", b'{"n":1}\n{"n":2}\n')
    load(pool, bucket, today=DAY)
    good = to_line(sealed(21))
    torn = good.replace(b"150.50", b"NaN") + b"\n" + to_line(sealed(22)) + b"\n"
    fork = jsonl_of([sealed(6, fork=1)])
    posts = [
        posted(*batch(range(6, 11))),
        posted(*batch(range(8, 13))),
        posted(name_of(torn, 21, 22), torn),
        posted(name_of(fork, 6, 6), fork),
        foreign(b'{"n":3}', key=f"post/{DEVICE}/1"),
    ]
    transact(pool, lambda connection: store(connection, posts))
    with pool.connection() as connection:
        (held,) = quarantine.list_held(connection, device_id=DEVICE, ended=False, limit=9)
    quarantine.replay(pool, held.quarantine_id, good)
    stick, (name, jsonl) = bucket.folder.parent / "stick", batch(range(12, 16))
    (stick / name.key).parent.mkdir(parents=True)
    (stick / name.key).write_bytes(gzip.compress(jsonl))
    older = stick / "older" / DEVICE / "sale-17.json"
    older.parent.mkdir(parents=True)
    older.write_bytes(b'{"n":17}')
    assert importing.import_paths(pool, bucket, [stick], dry_run=False).problems == ()


def test_every_way_to_bronze_is_counted_in_the_status(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Objects, batches and sales that were posted, lines that were replayed, sticks: each row once, in each count."""
    tokens.add_device(connection, DEVICE)
    every_way(pool, bucket)
    (rows,) = connection.execute("select count(*) from scout_bronze.transactions_raw").fetchone() or (0,)
    run_etl(pool)

    (told,) = operator.ingestion_status(connection)

    assert rows == 22
    assert [told.rows_loaded, told.rows_last_minute, told.rows_last_hour, told.rows_last_day] == [rows] * 4
    assert (told.rows_duplicate, told.rows_refused, told.rows_waiting) == (4, 0, 0)
    assert lags(connection, "etl", DEVICE).total() == rows
    assert told.etl_lag_p95_s in BOUNDS_S
    assert told.etl_lag_p95_s == told.etl_lag_p95_day_s
    assert (told.capture_lag_p95_s or 0) > 86_400
    assert told.first_loaded_at
    assert told.last_loaded_at


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection) -> Iterator[Endpoints]:
    """Endpoints of a server that has moved 20 sales: one an hour old before its ETL ran, and two days when it came."""
    for device_id in ("pi-1", "pi-2"):
        tokens.add_device(connection, device_id)
    rows: list[Landed] = [record(seq, {"n": seq}) for seq in range(1, 20)]
    load_id = land(connection, rows)
    received(connection, load_id, *[3.0] * 19)
    waited(connection, load_id, 7.0)
    late = land(connection, [record(1, {"n": 20}, device_id="pi-2")])
    received(connection, late, 2 * 86_400.0)
    waited(connection, late, 3590.0)
    run_etl(pool)
    with running(pool, bucket) as endpoints:
        yield endpoints


def test_status_metrics_and_the_page_tell_the_same(server: Endpoints, database_url: str) -> None:
    """Per device on the terminal, of all devices together in metrics and on the page."""
    as_json = scout_server("status", "--database-url", database_url, "--json")
    as_text = scout_server("status", "--database-url", database_url).stdout
    metrics = server.client.get("/metrics", headers=bearer(server.service())).text
    server.client.post("/fleet/sign-in", data={"token": server.service()})
    overview, road = (server.client.get(path).text for path in ("/fleet", "/fleet/road"))

    one, two = json.loads(as_json.stdout)
    assert (one["device_id"], one["etl_lag_p95_s"], one["capture_lag_p95_s"]) == ("pi-1", 10, 5)
    assert (two["device_id"], two["etl_lag_p95_s"], two["capture_lag_p95_day_s"]) == ("pi-2", 3600, 604_800)
    assert re.search(r"^pi-1 .* 10s +5s ", as_text, re.MULTILINE)
    assert re.search(r"^pi-2 .* 3,600s +604,800s ", as_text, re.MULTILINE)
    for window in ("hour", "day"):
        assert f'scout_server_etl_lag_p95_seconds{{window="{window}"}} 10.0' in metrics
        assert f'scout_server_capture_lag_p95_seconds{{window="{window}"}} 5.0' in metrics
    assert "&lt; 10 s" in overview
    assert "last hour, under the 2 min promised" in overview
    assert road.count("&lt; 10 s") == 2
    assert "kept" in road


def test_a_promise_that_is_not_kept_is_seen(
    server: Endpoints, connection: psycopg.Connection, pool: ConnectionPool
) -> None:
    """Of 22 sales two took an hour."""
    late = land(connection, [record(2, {"n": 21}, device_id="pi-2")])
    waited(connection, late, 3590.0)
    run_etl(pool)
    server.client.post("/fleet/sign-in", data={"token": server.service()})
    overview, road = (server.client.get(path).text for path in ("/fleet", "/fleet/road"))

    assert 'class="figure bad" href="/fleet/road"><span class="words">lag p95</span>' in overview
    assert "last hour, over the 2 min promised" in overview
    assert '<span class="badge bad">late</span>' in road


def test_where_nothing_came_nothing_is_said(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """No sample, no promise broken."""
    with running(pool, bucket) as endpoints:
        metrics = endpoints.client.get("/metrics", headers=bearer(endpoints.service())).text
        endpoints.client.post("/fleet/sign-in", data={"token": endpoints.service()})
        overview = endpoints.client.get("/fleet").text

    assert "# TYPE scout_server_etl_lag_p95_seconds gauge" in metrics
    assert "scout_server_etl_lag_p95_seconds{" not in metrics
    assert "nothing came in the last hour" in overview
    assert Lag().p95_last_hour_s is None
