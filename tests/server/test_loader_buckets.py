"""The loader over every form of bucket: each object once, whatever lies in it and whatever happens to it."""

import gzip
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, timedelta

import psycopg
import pytest
from bucket_forms import Form
from deliveries import DAY, DEVICE, batch, put_batch
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs
from test_loader import AWAITED, STATES, await_batch, rows, seqs

from server.bucket import Bucket, BucketRefused, ObjectInfo
from server.database import open_pool
from server.loader import Limits, LoadSummary, load

TODAY = DAY
REASONS = "select key, reason from scout_bronze.files where state = 'quarantined' order by key"


def test_objects_are_loaded_once_and_a_bad_one_stops_nothing(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """A cut batch, foreign lines and one that has no device are each judged alone; a second run finds nothing."""
    put_batch(form.bucket, range(1, 4))
    name, jsonl = batch(range(4, 7))
    form.bucket.put_new(name.key, gzip.compress(jsonl)[:-5])
    form.bucket.put_new(f"{DAY}/{DEVICE}/data.jsonl", b'{"transaction_id":"t-1"}\n{\n{"transaction_id":"t-1"}')
    form.bucket.put_new(f"{DAY}/stray.jsonl", b"{}")

    with capture_logs():
        summary = load(pool, form.bucket, today=TODAY)
    assert summary == LoadSummary(found=4, loaded=2, quarantined=2, accepted=4, duplicates=1, rejected=1)
    assert load(pool, form.bucket, today=TODAY, sweep=True) == LoadSummary()
    assert seqs(connection) == [1, 2, 3, None]
    assert [key for key, _ in rows(connection, REASONS)] == [name.key, f"{DAY}/stray.jsonl"]


def test_the_same_content_under_another_name_adds_nothing(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """Neither a batch uploaded again on another day nor foreign sales with ids in another file."""
    name, jsonl = batch(range(1, 4))
    sale = b'{"transaction_id":"t-1","peso_value":1}'
    form.bucket.put_new(name.key, gzip.compress(jsonl))
    form.bucket.put_new(f"{DAY}/{DEVICE}/a.jsonl", sale)
    load(pool, form.bucket, today=TODAY)
    form.bucket.put_new(replace(name, day=TODAY - timedelta(days=1)).key, gzip.compress(jsonl, mtime=1))
    form.bucket.put_new(f"{DAY}/{DEVICE}/b.jsonl", sale)

    assert load(pool, form.bucket, today=TODAY) == LoadSummary(found=2, loaded=2, duplicates=4)
    assert len(seqs(connection)) == 4


def test_an_object_written_anew_is_loaded_anew(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """Its new sales are added, those that were there are not added again."""
    key = f"{DAY}/{DEVICE}/data.jsonl"
    form.plant(key, b'{"id":1}\n{"id":2}')
    load(pool, form.bucket, today=TODAY)
    form.plant(key, b'{"id":1}\n{"id":3}')

    assert load(pool, form.bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=1, duplicates=1)
    assert len(seqs(connection)) == 3


def test_hostile_names_stop_nothing(pool: ConnectionPool, form: Form, connection: psycopg.Connection) -> None:
    """Beside a day's objects, above them and between them."""
    put_batch(form.bucket, range(1, 4))
    for name in form.odd_names:
        form.plant(name.replace("day", str(DAY), 1), b'{"id":1}')
        if not name.startswith(("/", ".")):
            form.plant(name.replace("day", f"{DAY}/{DEVICE}", 1), b'{"id":1}')

    with capture_logs() as logs:
        assert load(pool, form.bucket, today=TODAY).loaded == 1
        assert load(pool, form.bucket, today=TODAY, sweep=True) == LoadSummary()
    assert {entry["event"] for entry in logs} == {"odd_names_skipped"}
    assert seqs(connection) == [1, 2, 3]


@dataclass
class Interrupted:
    """A bucket of which something happens once a listing has ended."""

    bucket: Bucket
    then: Callable[[], object]

    @property
    def name(self) -> str:
        """As it is."""
        return self.bucket.name

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, and let it happen."""
        yield from self.bucket.list(prefix)
        self.then()

    def check(self) -> None:
        """As it is."""
        self.bucket.check()

    def put_new(self, key: str, body: bytes) -> None:
        """As it is."""
        self.bucket.put_new(key, body)

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """As it is."""
        return self.bucket.open(key)

    def version_of(self, key: str) -> str | None:
        """As it is."""
        return self.bucket.version_of(key)


def test_an_object_that_vanishes_after_it_was_listed_stops_nothing(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """The ledger says so, and the others are loaded."""
    gone = f"{DAY}/{DEVICE}/gone.jsonl"
    form.bucket.put_new(gone, b"{}")
    put_batch(form.bucket, range(1, 4))
    bucket = Interrupted(form.bucket, lambda: form.remove(gone))

    with capture_logs():
        summary = load(pool, bucket, today=TODAY, day=DAY)
    assert summary == LoadSummary(found=2, loaded=1, quarantined=1, accepted=3)
    assert rows(connection, REASONS) == [(gone, "it was listed, and is gone from the bucket")]


def test_two_loaders_at_once_load_each_object_once(
    database_url: str, form: Form, connection: psycopg.Connection
) -> None:
    """They share the work; the summaries add up."""
    for first in range(1, 46, 3):
        put_batch(form.bucket, range(first, first + 3))

    def run(_: int) -> LoadSummary:
        with open_pool(database_url, size_max=1) as pool:
            return load(pool, form.bucket, today=TODAY, limits=Limits(claim_objects_max=4))

    with ThreadPoolExecutor(2) as threads:
        summaries = list(threads.map(run, range(2)))

    assert seqs(connection) == list(range(1, 46))
    assert rows(connection, STATES) == [("loaded", 15)]
    assert sum(summary.loaded for summary in summaries) == 15


def test_a_late_object_is_loaded_wherever_it_sorts_and_whatever_its_date(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """Before what was loaded: by the next run. In an old or a future day: by its name if awaited, else by a sweep."""
    put_batch(form.bucket, range(50, 53))
    load(pool, form.bucket, today=TODAY)
    smaller = put_batch(form.bucket, range(1, 4))
    assert load(pool, form.bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=3)
    assert smaller.key < batch(range(50, 53))[0].key

    awaited, lost, ahead = (batch(range(first, first + 2)) for first in (4, 6, 8))
    for (name, jsonl), day in zip((awaited, lost, ahead), (2000, 2001, 2090), strict=True):
        form.bucket.put_new(replace(name, day=date(day, 1, 1)).key, gzip.compress(jsonl))
    await_batch(connection, replace(awaited[0], day=date(2000, 1, 1)).key)

    assert load(pool, form.bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=2)
    assert load(pool, form.bucket, today=TODAY, sweep=True) == LoadSummary(found=2, loaded=2, accepted=4)
    assert seqs(connection) == [*range(1, 10), 50, 51, 52]
    assert rows(connection, AWAITED) == []


def test_no_copy_is_asked_for_while_the_bucket_is_not_there(
    pool: ConnectionPool, form: Form, connection: psycopg.Connection
) -> None:
    """It would look empty, and every device would send everything again."""
    name = put_batch(form.bucket, range(1, 4))
    await_batch(connection, name.key, asked_s_ago=1000)
    form.destroy()

    with pytest.raises(BucketRefused):
        load(pool, form.bucket, today=TODAY)
    assert rows(connection, AWAITED) == [(name.key, 0)]
