"""However records arrive, silver and gold end the same: any order, any split, any repetition, any clock."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import psycopg
import pytest
from answers import assert_same, found, told
from clusters import a_database
from deliveries import foreign, jsonl_of, name_of, posted
from histories import SOURCES, UNREADABLE, ZONES, history, join_devices, set_zones
from landing import Landed
from psycopg import sql
from psycopg_pool import ConnectionPool
from test_clock import hear

from server import tokens
from server.bronze import store
from server.database import open_pool
from server.etl import run_checks, run_etl
from server.reading import Delivery
from wire.record import Record, format_instant

BOOT = "9b1f6a2e-0c1d-4e57-9d9a-0d8c5a0f7f11"
ZERO_AT = datetime(2025, 5, 1, tzinfo=UTC)
UNSET = datetime(1970, 1, 1, tzinfo=UTC)
"""What a clock without a battery says when its boot begins."""
UNSYNCED_DEVICES = ("pi-102", "pi-203", "pi-301-b")

OF_ARRIVAL = {"raw_id", "ingested_at", "src_filename", "line", "rejected_at"}
"""Columns that say when and in which file a record came first."""
TABLES = """
select nspname, relname
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where relkind = 'r' and (nspname = 'scout_gold' or nspname = 'scout' and relname ~ '^(silver|dim)_|_days$')
order by 1, 2
"""
REJECTIONS = """
select device_id, epoch, seq, record_id, transaction_id, field, reason
from scout.silver_rejections
join scout.silver_edge_events using (raw_id)
"""

Happening = Callable[[ConnectionPool, psycopg.Connection], object]
Snapshot = dict[str, Counter[tuple[Any, ...]]]


def fleet(seed: int) -> list[Landed]:
    """Records with times as they truly were, each device's seqs without holes; what is no JSON object is refused."""
    readable = [row for row in history(120, seed) if row.payload not in UNREADABLE[:2]]
    told_twice = [_by_another_device(row) for row in readable if row.device_id == "pi-101" and row.epoch]
    return [row for device in by_device([*readable, *told_twice]) for row in device]


def _by_another_device(row: Landed) -> Landed:
    """Return the same sale as a joined device tells it at the same moment, in other words: neither is the later one."""
    text = row.payload.replace('"cash"', '"maya"').replace('"peso_value":', '"basket":1,"peso_value":')
    claimed = json.loads(text).get("device_id")
    return replace(
        row, payload=text, device_id="pi-101-c", id=UUID(int=row.id.int ^ 1 << 127), claimed_device_id=claimed
    )


def by_device(records: list[Landed]) -> list[list[Landed]]:
    """The records of each device, and apart those that no agent took; counted from 1."""
    in_groups = groupby(sorted(records, key=_device), _device)
    return [[replace(row, seq=row.epoch and seq) for seq, row in enumerate(rows, start=1)] for _, rows in in_groups]


def _device(row: Landed) -> tuple[str, str]:
    return row.device_id, row.epoch or ""


def as_taken(row: Landed) -> Record:
    """The record as its device wrote it: some devices had no idea of the time, but counted since their boot began."""
    assert row.captured_at
    unsynced = row.device_id in UNSYNCED_DEVICES
    since_boot = row.captured_at - ZERO_AT
    at = UNSET + since_boot if unsynced else row.captured_at
    return Record(
        row.seq or 0,
        str(row.id),
        format_instant(at),
        "unsynced" if unsynced else "synced",
        BOOT,
        since_boot // timedelta(milliseconds=1),
        row.payload.encode(),
    )


def delivered(records: list[Landed], n: int) -> Delivery:
    """One batch of one device, or a file of what others uploaded."""
    device_id, epoch = records[0].device_id, records[0].epoch
    if epoch is None:
        body = "".join(row.payload + "\n" for row in records).encode()
        return foreign(body, key=f"2026-01-20/{device_id}/upload-{n}.jsonl", device_id=device_id)
    jsonl = jsonl_of(map(as_taken, records))
    name = name_of(jsonl, records[0].seq or 0, records[-1].seq or 0, device_id=device_id, epoch=epoch)
    return posted(name, jsonl)


def split(chance: random.Random, records: list[Landed]) -> Iterator[list[Landed]]:
    """Cut a device's records into runs, of which some begin before the one before ends: those come twice."""
    first = 0
    while first < len(records):
        size = chance.randint(1, 12)
        yield records[max(0, first - chance.choice((0, 0, 3))) : first + size]
        first += size


def landing(deliveries: list[Delivery]) -> Happening:
    """One transaction that stores these."""

    def happen(_: ConnectionPool, connection: psycopg.Connection) -> None:
        with connection.transaction():
            outcomes = store(connection, deliveries)
        assert not any(outcome.conflict or outcome.rejected for outcome in outcomes)

    return happen


def etl(pool: ConnectionPool, _: psycopg.Connection) -> None:
    """One run of the ETL."""
    run_etl(pool)


def heartbeat(device_id: str, zero_at: datetime, error_ms: int) -> Happening:
    """A device calls home and measures when its boot began."""
    return lambda _, connection: hear(connection, zero_at, error_ms, boot=BOOT, device_id=device_id)


def zone(store_id: str) -> Happening:
    """An operator says where the clock of a store stands."""
    return lambda _, connection: set_zones(connection, {store_id: ZONES[store_id]})


def plainly(records: list[Landed]) -> list[Happening]:
    """Everything known beforehand, one load, one run."""
    deliveries = [delivered(device, n) for n, device in enumerate(by_device(records))]
    return [
        *map(zone, ZONES),
        *(heartbeat(device, ZERO_AT, 5) for device in UNSYNCED_DEVICES),
        landing(deliveries),
        etl,
    ]


def wildly(records: list[Landed], chance: random.Random) -> list[Happening]:
    """The same in any order: batches that overlap, in loads of any size, runs between, clocks and zones known late."""
    runs = [run for device in by_device(records) for run in split(chance, device)]
    batches = [delivered(run, n) for n, run in enumerate(runs)]
    batches += chance.sample(batches, len(batches) // 5)
    chance.shuffle(batches)
    happenings: list[Happening] = []
    while batches:
        size = chance.randint(1, 8)
        happenings.append(landing(batches[:size]))
        del batches[:size]
    late: list[Happening] = [etl] * 6 + [zone(store_id) for store_id in ZONES]
    for device in UNSYNCED_DEVICES:
        # A rough measurement never replaces a surer one. (Of two that contradict each other, the later one counts.)
        rough, sure = heartbeat(device, ZERO_AT + timedelta(seconds=30), 900), heartbeat(device, ZERO_AT, 5)
        late += chance.choice(([rough, sure], [sure]))
    for happening in late:
        happenings.insert(chance.randint(0, len(happenings)), happening)
    return [*happenings, etl]


def snapshot(connection: psycopg.Connection) -> Snapshot:
    """Every row of silver, the dimensions and gold's tables, without what tells of its arrival."""
    rows = {f"{schema}.{name}": _rows(connection, schema, name) for schema, name in connection.execute(TABLES.encode())}
    return rows | {"scout.silver_rejections": Counter(connection.execute(REJECTIONS.encode()).fetchall())}


def _rows(connection: psycopg.Connection, schema: str, name: str) -> Counter[tuple[Any, ...]]:
    cursor = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, name)))
    kept = [place for place, column in enumerate(cursor.description or ()) if column.name not in OF_ARRIVAL]
    return Counter(tuple(str(row[place]) for place in kept) for row in cursor)


def lived(pool: ConnectionPool, connection: psycopg.Connection, happenings: list[Happening]) -> Snapshot:
    """Let it all happen to an empty warehouse; return what it holds then."""
    join_devices(connection, SOURCES)
    for device_id in UNSYNCED_DEVICES:
        tokens.add_device(connection, device_id)
    for happening in happenings:
        happening(pool, connection)
    run_etl(pool)
    assert {0} == {result.contradictions for result in run_checks(pool)}
    return snapshot(connection)


@pytest.mark.parametrize("seed", range(3))
def test_however_records_arrive_silver_and_gold_are_the_same(
    postgres_url: str, template_database: str, seed: int
) -> None:
    """And gold is what DuckDB makes of the records with the clocks put right."""
    records = fleet(seed)
    right = told(records, ZONES, SOURCES)
    snapshots = []
    for happenings in (plainly(records), wildly(records, random.Random(seed))):
        with (
            a_database(postgres_url, template_database) as url,
            psycopg.connect(url, autocommit=True) as connection,
            open_pool(url) as pool,
        ):
            snapshots.append(lived(pool, connection, happenings))
            arrived = connection.execute("select count(*) from scout.bronze_transactions_raw").fetchone()
            assert arrived == (len(records),)
            assert_same(found(connection), right)

    plain, wild = snapshots
    assert [name for name, rows in plain.items() if not rows] == []
    assert plain.keys() == wild.keys()
    for name, rows in plain.items():
        assert (rows - wild[name], wild[name] - rows) == (Counter(), Counter()), name
