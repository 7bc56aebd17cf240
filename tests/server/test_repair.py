"""What is missing in bronze comes again by itself: from the bucket, else from the device."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, batch, posted, put_batch
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server import audit as custody
from server import tokens
from server.bronze import store
from server.buckets.folder import FolderBucket
from server.database import transact
from server.etl import run_etl
from server.loader import load
from server.repair import Repaired, RepairLimits, repair
from wire.batch import BatchName

AT_ONCE = RepairLimits(check_s=0.0)


@dataclass
class Office:
    """A server's database and bucket, and a device that has told of ten records."""

    pool: ConnectionPool
    bucket: FolderBucket
    generation: str = ""

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database, or change it by hand."""
        with self.pool.connection() as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def post(self, seqs: Collection[int], resend: int = 0) -> BatchName:
        """Deliver a batch by the endpoint."""
        name, jsonl = batch(list(seqs))
        transact(self.pool, lambda connection: store(connection, [posted(name.again(resend), jsonl)]))
        return name

    def load(self) -> None:
        """Load, and move what came."""
        load(self.pool, self.bucket, today=DAY)
        run_etl(self.pool)

    def repair(self, limits: RepairLimits = AT_ONCE) -> Repaired:
        """Look for what is missing, as if a minute had passed since the last time."""
        self.rows("update scout_bronze.repairs set next_at = next_at - interval '61 seconds'")
        return repair(self.pool, self.bucket, limits)

    def call_home(self, *awaits: BatchName) -> dict[str, str]:
        """Report all as settled but what is awaited; return what the server says of these."""
        report = {
            "nonce": "n",
            "epochs": [{"epoch": EPOCH, "head": 10, "unsettled": [[name.first_seq, name.last_seq] for name in awaits]}],
            "awaits": [name.key for name in awaits],
            "generation": self.generation,
        }
        claims = {"role": "edge_uploader", "sub": DEVICE, "iat": 1_900_000_000}
        with self.pool.connection() as connection, connection.transaction():
            connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
            row = connection.execute("select public.heartbeat(%s)", [Jsonb(report)]).fetchone()
        assert row
        self.generation = row[0]["generation"]
        return {BatchName.parse(key).key: state for key, state in row[0]["batches"].items()}

    def hears(self) -> bool:
        """Whether a call home brings another generation, upon which the device awaits all it keeps."""
        before = self.generation
        self.call_home()
        return self.generation != before

    def problems(self) -> list[str]:
        """What keeps the audit from being clean."""
        with self.pool.connection() as connection:
            return custody.audit(connection).problems()

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """What bronze, production and silver hold, but for when it came."""
        return [self.rows(query) for query in LAYERS]


LAYERS = (
    (
        "select raw_id, device_id, epoch, seq, id, captured_at, clock, boot, mono_ms, payload, line"
        " from scout_bronze.transactions_raw order by raw_id"
    ),
    "select raw_id, epoch, seq, record_id, payload from scout.bronze_edge_raw order by raw_id",
    "select raw_id, epoch, seq, record_id, payload from scout.bronze_transactions_raw order by raw_id",
    "select * from scout.silver_edge_events order by raw_id",
    "select * from scout.silver_transactions order by transaction_key",
)

DELETE = "delete from scout_bronze.transactions_raw where seq in (2, 3, 9)"


@pytest.fixture
def office(pool: ConnectionPool, bucket: FolderBucket) -> Office:
    """A database that knows the device, and an empty bucket."""
    with pool.connection() as connection:
        tokens.add_device(connection, DEVICE)
    office = Office(pool, bucket)
    bucket.folder.mkdir(exist_ok=True)
    office.call_home()
    office.call_home()
    return office


def object_file(office: Office, name: BatchName) -> Path:
    """Where an object lies, open to whoever damages it."""
    path = office.bucket.folder / name.key
    path.chmod(0o600)
    return path


def deliver_by_bucket(office: Office) -> list[BatchName]:
    """Two batches in the bucket, loaded and moved."""
    names = [put_batch(office.bucket, range(1, 6)), put_batch(office.bucket, range(6, 11))]
    office.load()
    office.call_home()
    return names


def deliver_by_endpoint(office: Office) -> list[BatchName]:
    """Two batches posted and moved."""
    names = [office.post(range(1, 6)), office.post(range(6, 11))]
    office.load()
    office.call_home()
    return names


def test_rows_that_were_deleted_come_back_from_the_bucket_as_the_rows_they_were(office: Office) -> None:
    """Production and silver, which had them still, are not doubled; the device is not troubled."""
    deliver_by_bucket(office)
    before = office.everything()
    assert office.problems() == []
    office.rows(DELETE)
    assert office.problems() == ["missing sales: 3", "days whose sums don't meet: 1"]

    repaired = office.repair()
    office.load()

    assert repaired == Repaired(epochs=1, objects=2, devices=0)
    assert office.everything() == before
    assert office.problems() == []
    assert not office.hears()
    assert office.repair() == Repaired()
    assert office.rows("select * from scout_bronze.repairs") == []


def test_rows_that_were_deleted_everywhere_come_back_everywhere(office: Office) -> None:
    """Bronze, production and silver emptied: all of it again, once."""
    deliver_by_bucket(office)
    sales = "select transaction_key, peso_value from scout.silver_transactions order by 1"
    before = office.rows(sales)
    for statement in (
        "delete from scout_bronze.transactions_raw",
        "delete from scout.bronze_edge_raw",
        "delete from scout.bronze_transactions_raw",
        "delete from scout.silver_edge_events",
    ):
        office.rows(statement)

    office.repair()
    office.load()

    assert office.problems() == []
    assert office.rows(sales) == before
    assert office.rows("select count(*) from scout.bronze_edge_raw") == [(10,)]


@pytest.mark.parametrize(
    "table", ["scout.bronze_edge_raw", "scout.bronze_transactions_raw", "scout.silver_edge_events"]
)
def test_rows_that_were_deleted_further_on_are_moved_again(office: Office, table: str) -> None:
    """Also of a row that had come back to bronze by another load; nothing is typed twice."""
    deliver_by_bucket(office)
    sales = "select transaction_key, peso_value from scout.silver_transactions order by 1"
    before = office.rows(sales)
    office.rows(DELETE)
    office.repair()
    office.load()
    office.rows(DELETE.replace("scout_bronze.transactions_raw", table))
    assert office.problems() == ["days whose sums don't meet: 1"]

    assert office.repair().loads > 0
    run_etl(office.pool)

    assert office.problems() == []
    assert office.rows(sales) == before
    assert office.repair() == Repaired()


def test_the_same_rows_may_be_deleted_again_and_others_after_them(office: Office) -> None:
    """A file that was loaded several times still knows by which loads its rows came."""
    deliver_by_bucket(office)
    before = office.everything()

    for seqs in ([2, 3], [1, 2], [4, 3]):
        office.rows("delete from scout_bronze.transactions_raw where seq = any (%s)", seqs)
        office.repair()
        office.load()
        assert office.everything() == before
        assert office.problems() == []


def test_whichever_copy_brings_the_rows_back_the_ledger_agrees_with_bronze(office: Office) -> None:
    """A batch of which two copies were loaded, and then all rows deleted, twice."""
    first, second = deliver_by_bucket(office)
    office.bucket.put_new(second.again(1).key, (office.bucket.folder / second.key).read_bytes())
    before = office.everything()
    office.rows("delete from scout_bronze.transactions_raw where seq in (7, 8)")
    object_file(office, second).write_bytes(b"damaged")
    for _ in range(2):
        office.load()
        office.repair()
        office.load()
        assert office.problems() == []
        assert office.everything() == before
        office.rows("delete from scout_bronze.transactions_raw")

    office.repair()
    office.load()
    assert office.problems() == []
    assert office.everything() == before
    assert office.rows("select sum(accepted) from scout_bronze.files") == [(10,)]
    assert {state for (state,) in office.rows("select state from scout_bronze.files")} == {"loaded", "quarantined"}
    assert first.rows == second.rows == 5


def test_what_others_uploaded_comes_back_in_its_place_when_its_object_is_loaded_again(office: Office) -> None:
    """It has no seqs by which it could be missed, so an operator has it loaded; nothing is doubled."""
    office.bucket.put_new(f"{DAY}/{DEVICE}/others.jsonl", b'{"transaction_id":"a"}\n{"transaction_id":"b"}\n')
    office.load()
    before = office.everything()
    office.rows("delete from scout_bronze.transactions_raw where line = 2")
    assert "days whose sums don't meet: 1" in office.problems()

    office.rows("update scout_bronze.files set state = 'found'")
    office.load()

    assert office.everything() == before
    assert "days whose sums don't meet: 1" not in office.problems()


def test_rows_of_posts_come_from_the_device_which_awaits_all_it_keeps_again(office: Office) -> None:
    """The batches that lack rows are settled no more; the others still are."""
    names = [*deliver_by_endpoint(office)]
    before = office.everything()
    office.rows("delete from scout_bronze.transactions_raw where seq in (7, 8)")

    assert office.repair() == Repaired(epochs=1, objects=0, devices=1)
    assert office.hears()
    assert office.call_home(*names) == {names[0].key: "settled", names[1].key: "unknown"}
    office.load()
    assert office.call_home(names[1]) == {names[1].key: "resend 1"}
    office.post(range(6, 11), resend=1)
    run_etl(office.pool)

    assert office.call_home(names[1]) == {names[1].key: "settled"}
    assert office.call_home() == {}
    assert office.everything() == before
    assert office.problems() == []
    assert office.rows("select state, accepted, resend from scout_bronze.files order by file_id") == [
        ("loaded", 5, 0),
        ("gone", 3, 0),
        ("loaded", 2, 1),
    ]


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_an_object_that_can_not_be_read_again_is_asked_for_of_the_device(office: Office, damage: str) -> None:
    """First the bucket is tried; the next try asks, and a copy mends it."""
    first, second = deliver_by_bucket(office)
    before = office.everything()
    office.rows("delete from scout_bronze.transactions_raw where seq in (7, 8)")
    path = object_file(office, second)
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])

    assert office.repair() == Repaired(epochs=1, objects=1, devices=0)
    office.load()
    assert office.repair() == Repaired(epochs=1, objects=0, devices=1)
    assert office.hears()
    assert office.call_home(first, second) == {first.key: "settled", second.key: "unknown"}
    office.load()
    assert office.call_home(second) == {second.key: "resend 1"}
    _, jsonl = batch(range(6, 11))
    transact(office.pool, lambda connection: store(connection, [posted(second.again(1), jsonl)]))
    run_etl(office.pool)

    assert office.call_home(second) == {second.key: "settled"}
    office.call_home()
    assert office.everything() == before
    assert office.problems() == []


def test_what_the_ledger_does_not_know_is_asked_for_too(office: Office) -> None:
    """A head with nothing behind it: no name to ask by, so the device is asked about all it keeps."""
    office.call_home()
    assert office.problems() == ["missing sales: 10"]

    assert office.repair() == Repaired(epochs=1, devices=1)
    assert office.hears()
    name, _ = batch(range(1, 11))
    assert office.call_home(name) == {name.key: "unknown"}


def test_a_device_is_asked_once_until_it_has_heard(office: Office) -> None:
    """Of several epochs, and over several tries: another generation each would only make it send again."""
    deliver_by_endpoint(office)
    office.rows(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " select device_id, 'f000000000000000', 5, '{}', now(), now()"
        " from scout_edge.devices"
    )
    office.rows(DELETE)

    assert office.repair() == Repaired(epochs=2, devices=1)
    office.rows("update scout_bronze.repairs set next_at = now()")
    assert office.repair() == Repaired(epochs=2)
    office.call_home()
    office.call_home()
    office.rows("update scout_bronze.repairs set next_at = now()")
    assert office.repair().devices == 1


def test_what_can_not_be_got_is_tried_seldomer_and_at_once_when_more_is_missing(office: Office) -> None:
    """Each wait is twice the last; a fruitless try costs the device nothing in between."""
    deliver_by_endpoint(office)
    office.rows(DELETE)
    waits = []
    for _ in range(4):
        office.rows("update scout_bronze.repairs set next_at = now()")
        repair(office.pool, office.bucket, AT_ONCE)
        waits += office.rows("select tries, extract(epoch from next_at - tried_at)::int from scout_bronze.repairs")
    assert waits == [(1, 60), (2, 120), (3, 240), (4, 480)]
    assert repair(office.pool, office.bucket, AT_ONCE) == Repaired()

    office.rows("delete from scout_bronze.transactions_raw where seq = 10")
    assert repair(office.pool, office.bucket, AT_ONCE).epochs == 1
    assert office.rows("select tries from scout_bronze.repairs") == [(1,)]


def test_a_device_that_answered_three_times_is_asked_no_more(office: Office) -> None:
    """It has no more to give, and each time it keeps for longer what it has; more that is missing begins anew."""
    deliver_by_endpoint(office)
    office.rows(DELETE)
    asked = []
    for _ in range(5):
        office.rows("update scout_bronze.repairs set next_at = now()")
        asked.append(office.repair().devices)
        office.call_home()
        office.call_home()
    office.rows("delete from scout_bronze.transactions_raw where seq = 10")
    asked.append(office.repair().devices)

    assert asked == [1, 1, 1, 0, 0, 1]


def test_what_was_accepted_as_lost_is_left_alone(office: Office) -> None:
    """Nobody is asked for what an operator closed."""
    deliver_by_endpoint(office)
    office.rows(DELETE)
    with office.pool.connection() as connection:
        assert custody.accept_gap(connection, DEVICE, EPOCH, (1, 10), "by hand") == 3

    assert office.repair() == Repaired()


def test_what_the_card_lost_is_sought_in_the_bucket_and_not_asked_for(office: Office) -> None:
    """The device says itself that it has it no more."""
    deliver_by_bucket(office)
    office.rows(DELETE)
    office.rows("update scout_edge.heads set lost = '{[1,10]}'")

    assert office.repair() == Repaired(epochs=1, objects=2)
    office.load()
    assert office.problems() == []
    office.rows("update scout_edge.heads set lost = '{[1,12]}', head = 12")
    assert office.repair() == Repaired(epochs=1)


def test_a_run_looks_for_so_long_and_the_next_goes_on(office: Office) -> None:
    """Each epoch has its turn, and the ones that nobody looked at come first."""
    office.rows(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " select 'pi-05', to_char(n, 'FM0000000000000000'), 1000000, '{}', now(), now() from generate_series(1, 5) n"
    )
    office.rows("delete from scout_edge.heads where head = 10")
    limits = RepairLimits(heads_max=1, spent_s_max=2.0)

    done = [repair(office.pool, office.bucket, limits, count().__next__).epochs for _ in range(3)]

    assert done == [1, 1, 1]
    assert office.rows("select count(*) from scout_edge.heads where checked_at = '-infinity'") == [(2,)]
    assert repair(office.pool, office.bucket).epochs == 2
    assert repair(office.pool, office.bucket) == Repaired()


def test_each_try_says_in_the_log_what_it_did(office: Office) -> None:
    """With numbers, and nothing of a sale."""
    deliver_by_endpoint(office)
    office.rows(DELETE)
    with capture_logs() as logs:
        office.repair()

    (entry,) = [entry for entry in logs if entry["event"] == "missing_seqs_tried"]
    assert {name: entry[name] for name in ("device_id", "epoch", "tries", "objects", "batches_gone", "asked")} == {
        "device_id": DEVICE,
        "epoch": EPOCH,
        "tries": 1,
        "objects": 0,
        "batches_gone": 2,
        "asked": True,
    }


def test_two_that_repair_at_once_do_not_try_twice(office: Office, connection: psycopg.Connection) -> None:
    """An epoch that another one looks at is passed by."""
    deliver_by_endpoint(office)
    office.rows(DELETE)
    with connection.transaction():
        connection.execute("select * from scout_edge.heads for update")
        assert office.repair() == Repaired()
    assert office.repair().epochs == 1
