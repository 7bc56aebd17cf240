"""Whatever is deleted or damaged while a device keeps its batches: everything is as it was, and nothing is doubled."""

import gzip
import json
import random
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, batch, posted
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from server import audit as custody
from server import tokens
from server.bronze import store
from server.bucket import ObjectExists
from server.buckets.folder import FolderBucket
from server.database import transact
from server.etl import run_checks, run_etl
from server.loader import load
from server.repair import RepairLimits, repair
from wire.heartbeat import SETTLED, resend_number

ROUNDS_MAX = 40
"""Of looking, loading and calling home; what is repairable needs a handful."""

LATER = """
    update scout_bronze.repairs set next_at = now();
    update scout_edge.awaited
    set asked_at = asked_at - interval '2 hours', checked_at = null, resend_at = now() - interval '2 hours'
"""

LAYERS = (
    "scout_bronze.transactions_raw",
    "scout.bronze_edge_raw",
    "scout.bronze_transactions_raw",
    "scout.silver_edge_events",
)


class Device:
    """A device that keeps every batch, as the agent's spool and receipts do."""

    def __init__(self, pool: ConnectionPool, bucket: FolderBucket, chance: random.Random) -> None:
        self.pool, self.bucket, self.chance = pool, bucket, chance
        self.head = 0
        self.kept: dict[str, Any] = {}  # name and content of each batch, by its key
        self.awaited: set[str] = set()
        self.generation = ""
        self.resends = 0

    def sell(self, rows: int) -> None:
        """Seal a batch and send it."""
        name, jsonl = batch(range(self.head + 1, self.head + rows + 1))
        self.head += rows
        self.kept[name.key] = (name, jsonl)
        self.send(name.key)

    def send(self, key: str, resend: int = 0) -> None:
        """Deliver a batch, or a copy of it, by either way."""
        name, jsonl = self.kept[key]
        name = name.again(resend)
        self.awaited.add(key)
        if self.chance.random() < 0.5:
            transact(self.pool, lambda connection: store(connection, [posted(name, jsonl)]))
            return
        with suppress(ObjectExists):
            self.bucket.put_new(name.key, gzip.compress(jsonl))

    def call_home(self) -> None:
        """Report, and heed the answer."""
        report = {
            "nonce": "n",
            "generation": self.generation,
            "awaits": sorted(self.awaited),
            "epochs": [
                {
                    "epoch": EPOCH,
                    "head": self.head,
                    "unsettled": sorted(
                        [self.kept[key][0].first_seq, self.kept[key][0].last_seq] for key in self.awaited
                    ),
                }
            ],
        }
        claims = {"role": "edge_uploader", "sub": DEVICE, "iat": 1_900_000_000}
        with self.pool.connection() as connection, connection.transaction():
            connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
            row = connection.execute("select public.heartbeat(%s)", [Jsonb(report)]).fetchone()
        assert row
        for key, state in row[0]["batches"].items():
            number = resend_number(state)
            if state == SETTLED:
                self.awaited.discard(key)
            elif number:
                self.resends += 1
                self.send(key, number)
        if self.generation and row[0]["generation"] != self.generation:
            self.awaited = set(self.kept)
        self.generation = row[0]["generation"]


def do(pool: ConnectionPool, statement: str, *values: object) -> None:
    """Change the database by hand."""
    with pool.connection() as connection:
        connection.execute(statement.encode(), values or None)


def layers(pool: ConnectionPool) -> list[list[tuple[Any, ...]]]:
    """Number and place of every row of each layer."""
    queries = [psycopg.sql.SQL("select raw_id, seq from {} order by raw_id").format(_table(name)) for name in LAYERS]
    with pool.connection() as connection:
        return [connection.execute(query).fetchall() for query in queries]


def _table(name: str) -> psycopg.sql.Identifier:
    return psycopg.sql.Identifier(*name.split("."))


def mend(pool: ConnectionPool, bucket: FolderBucket, device: Device) -> None:
    """Let the server's loops and the device go on until all is clean."""
    for _ in range(ROUNDS_MAX):
        load(pool, bucket, today=DAY)
        repair(pool, bucket, RepairLimits(check_s=0.0))
        load(pool, bucket, today=DAY)
        run_etl(pool)
        device.call_home()
        do(pool, LATER)
        with pool.connection() as connection:
            found = custody.audit(connection)
        if not found.problems() and not device.awaited:
            return
    raise AssertionError(found.problems(), found)


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6, 7, 8])  # of 2 nothing was left to the device
def test_what_a_device_keeps_is_never_missing_for_long(pool: ConnectionPool, bucket: FolderBucket, seed: int) -> None:
    """Three disasters one after the other, each of a random kind and place."""
    chance = random.Random(seed)
    with pool.connection() as connection:
        tokens.add_device(connection, DEVICE)
    bucket.folder.mkdir(exist_ok=True)
    device = Device(pool, bucket, chance)
    deleted = 0
    for _ in range(3):
        for _ in range(3):
            device.sell(chance.randint(1, 9))
        mend(pool, bucket, device)
        assert_whole(pool, device)

        for path in sorted(bucket.folder.glob("*/*/*")):
            fate = chance.random()
            if fate < 0.25:
                path.unlink()
            elif fate < 0.5:
                path.chmod(0o600)
                path.write_bytes(path.read_bytes()[:-7])
        for name in LAYERS:
            if chance.random() < 0.6:
                seqs = [seq for seq in range(1, device.head + 1) if chance.random() < 0.3]
                statement = psycopg.sql.SQL("delete from {} where seq = any (%s)").format(_table(name))
                with pool.connection() as connection:
                    deleted += connection.execute(statement, [seqs]).rowcount
        mend(pool, bucket, device)

        assert_whole(pool, device)
    assert deleted > 0
    assert device.resends > 0


def assert_whole(pool: ConnectionPool, device: Device) -> None:
    """Each record is once in each layer, under one number in all of them, and no check finds a contradiction."""
    first, *others = layers(pool)
    assert sorted(seq for _, seq in first) == list(range(1, device.head + 1))
    assert [rows for rows in others if rows != first] == []
    contradictions = {result.check: result.contradictions for result in run_checks(pool)}
    assert contradictions
    assert set(contradictions.values()) == {0}, contradictions
