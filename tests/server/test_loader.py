"""Each object once, whatever happens to the loaders, and one bad object never in the way of the next."""

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from threading import Event
from time import monotonic

import psycopg
import pytest
from deliveries import DAY, DEVICE, batch, jsonl_of, name_of, posted, put_batch, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server.bronze import store
from server.bucket import BucketRefused, BucketUnavailable, ObjectInfo
from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.loader import Limits, LoadSummary, load
from wire.record import to_line

TODAY = DAY
SEQS = "select seq from scout_bronze.transactions_raw order by device_id, epoch, seq, id"
STATES = "select state, count(*) from scout_bronze.files group by state order by state"
AWAITED = "select key, resend from scout_edge.awaited order by key"
LOADER = """
import sys
from datetime import date
from pathlib import Path
from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.loader import load

with open_pool(sys.argv[1], size_max=1) as pool:
    load(pool, FolderBucket(Path(sys.argv[2])), today=date.fromisoformat(sys.argv[3]))
"""


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Look again and again until `condition` holds."""
    deadline, pause = monotonic() + timeout_s, Event()
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"
        pause.wait(0.02)


def rows(connection: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    """Read all rows."""
    return connection.execute(query.encode()).fetchall()


def seqs(connection: psycopg.Connection) -> list[object]:
    """Give the seqs in bronze, in key order."""
    return [seq for (seq,) in rows(connection, SEQS)]


def put(bucket: FolderBucket, file: str, body: bytes) -> None:
    """Upload what is not the agent's into the device's folder."""
    bucket.put_new(f"{DAY}/{DEVICE}/{file}", body)


def touch(bucket: FolderBucket) -> None:
    """Give every object another version with the same content."""
    for item in list(bucket.list("")):
        path = bucket.folder / item.key
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def await_batch(connection: psycopg.Connection, key: str, asked_s_ago: float = 0) -> None:
    """Let the device await a batch, as its heartbeat does."""
    connection.execute(
        "insert into scout_edge.devices (device_id, source) values (%s, %s) on conflict do nothing", [DEVICE, DEVICE]
    )
    connection.execute(
        "insert into scout_edge.awaited (device_id, key, asked_at) values (%s, %s, now() - %s * interval '1 second')",
        [DEVICE, key, asked_s_ago],
    )


def test_objects_are_loaded_once(pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection) -> None:
    """The second run finds nothing."""
    put_batch(bucket, range(1, 4))
    put_batch(bucket, range(4, 6))
    put(bucket, "data.jsonl", b'{"transaction_id":"t-1"}\n{\n{"transaction_id":"t-1"}')

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=3, loaded=3, accepted=6, duplicates=1, rejected=1)
    assert load(pool, bucket, today=TODAY) == LoadSummary()
    assert seqs(connection) == [1, 2, 3, 4, 5, None]


def test_an_object_of_another_version_with_the_same_content_adds_nothing(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """A bucket that was copied elsewhere may be loaded again."""
    put_batch(bucket, range(1, 4))
    put(bucket, "data.jsonl", b'{"peso_value":1}\n{"peso_value":1}')
    load(pool, bucket, today=TODAY)
    touch(bucket)

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=2, loaded=2, duplicates=5)
    assert len(seqs(connection)) == 5


def test_a_file_written_anew_under_its_old_name_brings_its_new_sales(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Also where the till gives its sales no ids: other text at the same place is another sale."""
    put(bucket, "data.jsonl", b'{"peso_value":1}\n{"peso_value":2}')
    load(pool, bucket, today=TODAY)
    (bucket.folder / f"{DAY}/{DEVICE}/data.jsonl").write_bytes(b'{"peso_value":1}\n{"peso_value":3}\n{"peso_value":4}')

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=2, duplicates=1)
    assert len(seqs(connection)) == 4


def test_four_loaders_at_once_ten_times_load_each_object_once(
    database_url: str, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Each record once, one ledger row each, and the summaries add up."""
    limits = Limits(claim_objects_max=7)  # so that they really share the work
    for first in range(1, 240, 3):
        put_batch(bucket, range(first, first + 3))

    def run(_: int) -> list[LoadSummary]:
        with open_pool(database_url, size_max=1) as pool:
            return [load(pool, bucket, today=TODAY, limits=limits) for _ in range(10)]

    with ThreadPoolExecutor(4) as threads:
        summaries = [summary for each in threads.map(run, range(4)) for summary in each]

    assert seqs(connection) == list(range(1, 241))
    assert rows(connection, STATES) == [("loaded", 80)]
    assert sum(summary.found for summary in summaries) == 80
    assert sum(summary.loaded for summary in summaries) == 80
    assert sum(summary.accepted for summary in summaries) == 240


def test_objects_that_come_again_ten_times_by_four_loaders_add_nothing(
    database_url: str, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Every time under a new version, so that every line is read and merged again."""
    limits = Limits(claim_objects_max=3)
    for first in range(1, 31, 2):
        put_batch(bucket, range(first, first + 2))

    def run(_: int) -> int:
        with open_pool(database_url, size_max=1) as pool:
            return load(pool, bucket, today=TODAY, limits=limits).accepted

    accepted = 0
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            accepted += sum(threads.map(run, range(4)))
            touch(bucket)

    assert seqs(connection) == list(range(1, 31))
    assert accepted == 30
    assert rows(connection, STATES) == [("loaded", 150)]


SLOW_LOADER = """
import sys
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.loader import load

class SlowBucket(FolderBucket):
    @contextmanager
    def open(self, key):
        with super().open(key) as pieces:
            yield self.slowly(pieces)

    def slowly(self, pieces):
        yield next(pieces)
        print("in the middle", flush=True)
        sys.stdin.read()

with open_pool(sys.argv[1], size_max=1) as pool:
    load(pool, SlowBucket(Path(sys.argv[2])), today=date.fromisoformat(sys.argv[3]))
"""


def test_a_loader_killed_while_an_object_comes_leaves_nothing_of_it(
    pool: ConnectionPool, database_url: str, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Part of its lines were on their way to the database; the next loader takes the object from its beginning."""
    sales = b"".join(b'{"transaction_id":"t-%d","note":"%s"}\n' % (number, b"x" * 100) for number in range(2000))
    put(bucket, "data.jsonl", sales)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_LOADER, database_url, bucket.folder, str(TODAY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"in the middle\n"
        copying = (
            "select 1 from pg_stat_activity where query like 'copy pg_temp.staged%' and datname = current_database()"
        )
        assert rows(connection, copying)
        process.kill()

    assert seqs(connection) == []
    until(lambda: load(pool, bucket, today=TODAY).loaded == 1)
    assert len(seqs(connection)) == 2000


@pytest.fixture
def loader_process(database_url: str, bucket: FolderBucket) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start loaders as processes of their own."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", LOADER, database_url, bucket.folder, str(TODAY)])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_loader_killed_in_the_middle_of_an_object_leaves_nothing_of_it(
    pool: ConnectionPool,
    bucket: FolderBucket,
    connection: psycopg.Connection,
    loader_process: Callable[[], subprocess.Popen[bytes]],
) -> None:
    """It held its claim and had written its rows; the next loader finds the object as it was."""
    put_batch(bucket, range(1, 4))
    waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with pool.connection() as blocking, blocking.transaction():
        blocking.execute("lock table scout_bronze.loads in exclusive mode")
        process = loader_process()
        until(lambda: bool(rows(connection, waits)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert load(pool, bucket, today=TODAY) == LoadSummary()  # still claimed: PostgreSQL has not noticed
    assert rows(connection, STATES) == [("found", 1)]

    until(lambda: load(pool, bucket, today=TODAY).loaded == 1)
    assert seqs(connection) == [1, 2, 3]
    assert rows(connection, STATES) == [("loaded", 1)]


def test_a_transaction_that_commits_late_is_not_missed(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Loads that began after it and ended before it don't hide its own."""
    name, jsonl = batch(range(1, 4))
    with pool.connection() as slow, slow.transaction():
        store(slow, [posted(name, jsonl)])
        put_batch(bucket, range(4, 6))
        assert load(pool, bucket, today=TODAY).loaded == 1
        before = rows(connection, "table scout_bronze.loads")

    after = rows(connection, "select load_id from scout_bronze.loads order by load_id")
    assert (len(before), len(after)) == (1, 2)
    assert after[1][0] == before[0][0]
    assert seqs(connection) == [1, 2, 3, 4, 5]


def test_an_unreadable_object_is_quarantined_with_its_reason(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Every kind of it is named in ledger, quarantine and log, and all others are loaded."""
    name, jsonl = batch(range(1, 4))
    short = name_of(jsonl, 1, 2)
    bucket.put_new(name.key, gzip.compress(jsonl)[:-5])
    bucket.put_new(replace(name, hash="0" * 16).key, gzip.compress(jsonl))
    bucket.put_new(short.key, gzip.compress(jsonl))
    put(bucket, "cut.json.zst", b"\x28\xb5\x2f\xfd")
    put(bucket, "data.csv", b"a,b")
    bucket.put_new(f"{DAY}/no device/data.jsonl", b"")
    bucket.put_new(f"{DAY}/data.jsonl", b"")
    bucket.put_new(f"{DAY}/{DEVICE}/deeper/data.jsonl", b"")
    put_batch(bucket, range(4, 6))

    with capture_logs() as logs:
        summary = load(pool, bucket, today=TODAY)
    assert summary == LoadSummary(found=9, loaded=1, quarantined=8, accepted=2)
    reasons = dict(connection.execute("select key, reason from scout_bronze.files where state = 'quarantined'"))
    assert "cut off" in reasons[name.key]
    assert "not what its name says" in reasons[replace(name, hash="0" * 16).key]
    assert "has 3 lines, and its name says 2" in reasons[short.key]
    assert "names no device" in reasons[f"{DAY}/no device/data.jsonl"]
    held = rows(connection, "select reason from scout_bronze.quarantine where kind = 'object'")
    assert sorted(reason for (reason,) in held) == sorted(reasons.values())
    assert [entry["event"] for entry in logs] == ["object_quarantined"] * 8
    assert load(pool, bucket, today=TODAY) == LoadSummary()


def test_an_object_found_bad_after_many_of_its_lines_leaves_none_of_them(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Cut off, damaged, or at its end not what its name says: its neighbours in the same transaction are loaded."""
    name, jsonl = batch(range(1, 20_001))
    stored = gzip.compress(jsonl)
    bad = {
        name.key: stored[: -len(stored) // 4],
        replace(name, day=TODAY - timedelta(days=1)).key: stored[:-8] + b"\0" * 8,
        replace(name, hash="0" * 16).key: stored,
        replace(name, last_seq=20_001).key: stored,
        replace(name, first_seq=2, last_seq=20_001).key: stored,
        f"{DAY}/{DEVICE}/cut.jsonl.gz": gzip.compress(jsonl)[:-1],
    }
    for seq in (30_001, 30_003):
        put_batch(bucket, range(seq, seq + 2))
    for key, body in bad.items():
        bucket.put_new(key, body)

    with capture_logs():
        summary = load(pool, bucket, today=TODAY)
    assert summary == LoadSummary(found=8, loaded=2, quarantined=6, accepted=4)
    assert seqs(connection) == [30_001, 30_002, 30_003, 30_004]
    assert rows(connection, "select kind, count(*) from scout_bronze.quarantine group by kind") == [("object", 6)]
    assert rows(connection, "select rows from scout_bronze.loads") == [(4,)]


def test_hostile_names_stop_nothing(pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection) -> None:
    """What somebody put into the bucket's folder behind its back is passed over."""
    put_batch(bucket, range(1, 4))
    folder = bucket.folder / str(DAY) / DEVICE
    for file_name in ("a\nb.jsonl", "%2e%2e.jsonl", "piñata.jsonl", "~.jsonl"):
        (folder / file_name).write_bytes(b'{"a":1}')
    (folder / "link.jsonl").symlink_to("/etc/passwd")
    (bucket.folder / str(DAY) / "..;").mkdir()

    assert load(pool, bucket, today=TODAY, sweep=True).loaded == 1
    assert seqs(connection) == [1, 2, 3]


class FarBucket(FolderBucket):
    """A bucket that lists what ours would never hold, as a bucket elsewhere may."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List two more."""
        yield ObjectInfo(f"{DAY}/{DEVICE}/../../../etc/passwd.jsonl", "1", 10)
        yield from super().list(prefix)
        yield ObjectInfo(f"{DAY}/{DEVICE}/gone.jsonl", "1", 10)
        yield ObjectInfo(f"{DAY}/{DEVICE}/huge.jsonl", "1", 2**40)


def test_a_listed_name_that_cannot_be_or_is_gone_is_quarantined(
    pool: ConnectionPool, tmp_path: Path, connection: psycopg.Connection
) -> None:
    """A hostile key is never opened; what was removed meanwhile, or is too large to read, is said to be."""
    bucket = FarBucket(tmp_path / "bucket")
    put_batch(bucket, range(1, 4))

    assert load(pool, bucket, today=TODAY, sweep=True) == LoadSummary(found=4, loaded=1, quarantined=3, accepted=3)
    reasons = [str(reason) for (reason,) in rows(connection, "select reason from scout_bronze.quarantine order by 1")]
    assert ["gone" in reasons[1], "larger" in reasons[0], "name is refused" in reasons[2]] == [True] * 3


def test_one_poison_line_among_many_batches_stops_nothing(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """It is held in line quarantine; all else is loaded in the same run."""
    for first in range(1, 600, 3):
        lines = [to_line(record(seq)) for seq in range(first, first + 3)]
        if first == 301:
            lines[1] = lines[1].replace(record(302).payload, b"NaN")
        jsonl = b"\n".join(lines) + b"\n"
        bucket.put_new(name_of(jsonl, first, first + 2).key, gzip.compress(jsonl))

    summary = load(pool, bucket, today=TODAY)
    assert summary == LoadSummary(found=200, loaded=200, accepted=599, rejected=1)
    assert seqs(connection) == [seq for seq in range(1, 601) if seq != 302]
    assert rows(connection, "select kind, seq from scout_bronze.quarantine") == [("line", 302)]


@pytest.fixture
def poison(connection: psycopg.Connection) -> None:
    """Let the database refuse the record at seq 302, which reading finds nothing wrong with."""
    connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin "
        "raise exception 'refused: %', new.payload using errcode = 'data_exception'; end $$"
    )
    connection.execute(
        "create trigger refuse before insert on scout_bronze.transactions_raw "
        "for each row when (new.seq = 302) execute function refuse()"
    )


@pytest.mark.usefixtures("poison")
def test_an_object_that_the_database_refuses_is_left_for_later_alone(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Its company is loaded, the failure is counted without quoting the data, and it is tried again later."""
    for first in range(1, 600, 3):
        put_batch(bucket, range(first, first + 3))

    with capture_logs() as logs:
        summary = load(pool, bucket, today=TODAY)
    assert (summary.found, summary.loaded, summary.postponed, summary.accepted) == (200, 199, 1, 597)
    ledger = "select tries, reason, retry_at > now() from scout_bronze.files where state = 'found'"
    assert rows(connection, ledger) == [(1, "it could not be loaded: DataException (22000)", True)]
    assert [entry["event"] for entry in logs] == ["claim_split", "object_postponed"]
    assert "peso_value" not in str(logs)
    assert load(pool, bucket, today=TODAY) == LoadSummary()

    connection.execute("drop trigger refuse on scout_bronze.transactions_raw")
    connection.execute("update scout_bronze.files set retry_at = now()")
    assert load(pool, bucket, today=TODAY) == LoadSummary(loaded=1, accepted=3)
    assert seqs(connection) == list(range(1, 601))


@pytest.mark.usefixtures("poison")
def test_an_object_refused_again_waits_twice_as_long(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """A failure that stays costs less and less, and at least a try a day."""
    put_batch(bucket, range(301, 304))
    waits = "select (extract(epoch from retry_at - now()) / 60)::int from scout_bronze.files"
    minutes = []
    for tries in (0, 1, 2, 30):
        connection.execute("update scout_bronze.files set retry_at = now(), tries = %s", [tries])
        load(pool, bucket, today=TODAY)
        minutes += rows(connection, waits)

    assert minutes == [(1,), (2,), (4,), (24 * 60,)]


class BrokenBucket(FolderBucket):
    """A bucket that fails at one object, and with `away` altogether once it comes to that."""

    fault: Exception = OSError(5, "Input/output error")
    away = False

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Fail for one object."""
        if key.endswith("bad.jsonl"):
            raise self.fault
        return super().open(key)

    def check(self) -> None:
        """Be there, until an object was asked for."""
        if self.away and self.checked:
            raise BucketUnavailable
        self.checked = True

    checked = False


class GoneBucket(FolderBucket):
    """A bucket that can be listed once and then is gone."""

    listed = False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, for the last time."""
        yield from super().list(prefix)
        self.listed = True

    def check(self) -> None:
        """Be there until then."""
        if self.listed:
            raise BucketRefused

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Give nothing."""
        raise BucketRefused(key)


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), BucketUnavailable(), BucketRefused()], ids=repr)
def test_an_object_that_alone_cannot_be_read_is_left_for_later(
    pool: ConnectionPool, tmp_path: Path, fault: Exception
) -> None:
    """A bad spot of a disk or an object that a far bucket withholds is never the end of a run."""
    bucket = BrokenBucket(tmp_path / "bucket")
    bucket.fault = fault
    put(bucket, "bad.jsonl", b"{}")
    put_batch(bucket, range(1, 4))

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=2, loaded=1, postponed=1, accepted=3)


class CutBucket(FolderBucket):
    """A bucket whose connection is cut in the middle of one object, as often as `cuts` says."""

    cuts = 1

    @contextmanager
    def open(self, key: str) -> Iterator[Iterator[bytes]]:
        """Give the first piece only."""
        with super().open(key) as pieces:
            yield self._cut(pieces) if key.endswith("cut.jsonl") and self.cuts else pieces

    def _cut(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield next(pieces)
        self.cuts -= 1
        raise BucketUnavailable("the bucket does not answer")


@pytest.mark.parametrize(("cuts", "postponed"), [(1, 0), (2, 1)])
def test_an_object_cut_on_the_way_is_read_again_from_its_beginning(
    pool: ConnectionPool, tmp_path: Path, connection: psycopg.Connection, cuts: int, postponed: int
) -> None:
    """At once, alone; if it is cut then too, later. What had come of it counts for nothing, and others are loaded."""
    bucket = CutBucket(tmp_path / "bucket")
    bucket.cuts = cuts
    put_batch(bucket, range(1, 4))
    put(bucket, "cut.jsonl", b"".join(b'{"transaction_id":"t-%d"}\n' % number for number in range(10_000)))

    with capture_logs():
        summary = load(pool, bucket, today=TODAY)
    assert (summary.loaded, summary.postponed) == (2 - postponed, postponed)
    assert len(seqs(connection)) == (3 if postponed else 10_003)
    connection.execute("update scout_bronze.files set retry_at = now()")
    assert load(pool, bucket, today=TODAY).loaded == postponed
    assert len(seqs(connection)) == 10_003


def test_a_bucket_may_take_its_time(database_url: str, bucket: FolderBucket, connection: psycopg.Connection) -> None:
    """Lines travel as the bucket gives them: where a database ends long statements, it does not end those."""
    put_batch(bucket, range(1, 4))
    connection.execute(f"alter database {connection.info.dbname} set statement_timeout = '5min'".encode())
    connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'limited'; end $$"
    )
    connection.execute(
        "create trigger refuse before insert on scout_bronze.transactions_raw "
        "for each row when (current_setting('statement_timeout') <> '0') execute function refuse()"
    )
    with open_pool(database_url, size_max=1) as pool:
        assert load(pool, bucket, today=TODAY).loaded == 1
        with pool.connection() as limited:
            assert rows(limited, "show statement_timeout") == [("5min",)]


def test_a_bucket_that_goes_away_in_the_middle_is_no_objects_fault(
    pool: ConnectionPool, tmp_path: Path, connection: psycopg.Connection
) -> None:
    """It is raised; nothing is counted against any object, and the next run loads them."""
    bucket = BrokenBucket(tmp_path / "bucket")
    bucket.fault, bucket.away = BucketUnavailable(), True
    put(bucket, "bad.jsonl", b"{}")
    put_batch(bucket, range(1, 4))

    with pytest.raises(BucketUnavailable):
        load(pool, bucket, today=TODAY)
    assert rows(connection, "select tries from scout_bronze.files where state = 'found'") == [(0,)]
    assert load(pool, FolderBucket(bucket.folder), today=TODAY) == LoadSummary(loaded=1, accepted=1)


def test_an_outage_is_no_objects_fault(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """It is raised; nothing is counted against any object, and the next run loads them."""
    put_batch(bucket, range(1, 4))
    connection.execute("alter table scout_bronze.loads rename to hidden")

    with pytest.raises(psycopg.errors.UndefinedTable):
        load(pool, bucket, today=TODAY)
    assert rows(connection, "select state, tries from scout_bronze.files") == [("found", 0)]
    connection.execute("alter table scout_bronze.hidden rename to loads")
    assert load(pool, bucket, today=TODAY).loaded == 1


def test_only_todays_and_yesterdays_folders_are_listed_unless_asked(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """A sweep finds the rest; a day finds its own folder and loads nothing else."""
    for age_days in range(5):
        bucket.put_new(f"{TODAY - timedelta(days=age_days)}/{DEVICE}/data.jsonl", b'{"n":%d}' % age_days)

    third = TODAY - timedelta(days=3)
    assert load(pool, bucket, today=TODAY, day=third) == LoadSummary(found=1, loaded=1, accepted=1)
    assert load(pool, bucket, today=TODAY).loaded == 2
    assert load(pool, bucket, today=TODAY, sweep=True).loaded == 2
    assert load(pool, bucket, today=TODAY, sweep=True) == LoadSummary()
    assert load(pool, bucket, today=date(2030, 1, 1), day=TODAY) == LoadSummary()


def test_a_claim_is_bounded_by_bytes_and_objects(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """More than fits into one transaction is loaded by the next, and none is left."""
    limits = Limits(claim_bytes_max=100, claim_objects_max=5, listed_max=3)
    for first in range(1, 40, 2):
        put_batch(bucket, range(first, first + 2))

    assert load(pool, bucket, today=TODAY, limits=limits).loaded == 20
    # A batch has about 90 bytes of payload, so that two of them pass the limit.
    assert rows(connection, "select rows from scout_bronze.loads") == [(4,)] * 10


def test_what_is_unreadable_after_many_lines_fills_a_claim_too(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Its lines lay in the database until the end: a folder full of bombs is not one transaction."""
    for number in range(6):
        put(bucket, f"{number}.jsonl.gz", gzip.compress(b'{"note":"%s"}\n' % (b"x" * 1000) * 10)[:-1])

    with capture_logs():
        assert load(pool, bucket, today=TODAY, limits=Limits(claim_bytes_max=15_000)).quarantined == 6
    assert rows(connection, "select count(distinct xmin::text) from scout_bronze.quarantine") == [(3,)]


def test_a_run_says_how_far_it_is(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """After each transaction: how many objects are done, of how many; what an earlier run left over counts too."""
    seen: list[tuple[int, int]] = []
    put(bucket, "bad.csv", b"")
    put_batch(bucket, range(1, 3))
    with pytest.raises(BucketRefused):
        load(pool, GoneBucket(bucket.folder), today=TODAY)
    for first in range(3, 13, 2):
        put_batch(bucket, range(first, first + 2))

    with capture_logs():
        summary = load(
            pool,
            bucket,
            today=TODAY,
            limits=Limits(claim_objects_max=3),
            progress=lambda done, found: seen.append((done, found)),
        )
    assert (summary.found, summary.loaded, summary.quarantined) == (5, 6, 1)
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]


def test_a_run_with_nothing_to_do_says_nothing(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """There is nothing to look at."""
    load(pool, bucket, today=TODAY, progress=lambda *_: pytest.fail("it said something"))


def test_an_awaited_batch_is_looked_up_by_its_exact_name(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Also in a folder that nobody lists; once loaded it is awaited no more."""
    name, jsonl = batch(range(1, 4))
    name = replace(name, day=date(2000, 1, 1))
    bucket.put_new(name.key, gzip.compress(jsonl))
    await_batch(connection, name.key)

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=3)
    assert rows(connection, AWAITED) == []


def test_a_batch_that_came_by_the_other_path_is_awaited_no_more(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """The ledger covers it, though the bucket has no such object."""
    name, jsonl = batch(range(1, 4))
    with connection.transaction():
        store(connection, [posted(name, jsonl)])
    await_batch(connection, name.key, asked_s_ago=1000)
    load(pool, bucket, today=TODAY)

    assert rows(connection, AWAITED) == []


def test_an_absent_batch_is_asked_for_again_only_after_a_while(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """An upload is answered before the object is listed; asking twice for one copy is no use either."""
    young, old = batch(range(1, 4))[0], batch(range(4, 6))[0]
    await_batch(connection, young.key, asked_s_ago=30)
    await_batch(connection, old.key, asked_s_ago=90)
    for _ in range(3):
        load(pool, bucket, today=TODAY, limits=Limits(absent_s=60))
        connection.execute("update scout_edge.awaited set checked_at = checked_at - interval '61 seconds'")

    assert rows(connection, AWAITED) == [(young.key, 0), (old.key, 1)]
    connection.execute("update scout_edge.awaited set resend_at = resend_at - interval '2 hours'")
    load(pool, bucket, today=TODAY)
    assert rows(connection, AWAITED) == [(young.key, 0), (old.key, 2)]


def test_a_name_looked_up_just_now_is_not_looked_up_again(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """A long outage of many devices does not make every run long."""
    name, jsonl = batch(range(1, 4))
    name = replace(name, day=date(2000, 1, 1))
    await_batch(connection, name.key)
    load(pool, bucket, today=TODAY)
    bucket.put_new(name.key, gzip.compress(jsonl))

    assert load(pool, bucket, today=TODAY) == LoadSummary()
    connection.execute("update scout_edge.awaited set checked_at = checked_at - interval '61 seconds'")
    assert load(pool, bucket, today=TODAY).loaded == 1


def test_a_damaged_batch_is_asked_for_until_a_copy_settles_it(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Each damaged copy raises the number once; the copy that is whole ends it, in whatever folder it lies."""
    name, jsonl = batch(range(1, 4))
    name = replace(name, day=date(2000, 1, 1))
    whole = gzip.compress(jsonl)
    bucket.put_new(name.key, whole[:-5])
    await_batch(connection, name.key)
    asked = []
    for _ in range(2):
        load(pool, bucket, today=TODAY)
        connection.execute("update scout_edge.awaited set checked_at = null")
        asked += rows(connection, AWAITED)
    bucket.put_new(name.again(1).key, whole[:-5])
    load(pool, bucket, today=TODAY)
    connection.execute("update scout_edge.awaited set checked_at = null")
    asked += rows(connection, AWAITED)
    bucket.put_new(name.again(2).key, whole)

    assert load(pool, bucket, today=TODAY) == LoadSummary(found=1, loaded=1, accepted=3)
    assert asked == [(name.key, 1), (name.key, 1), (name.key, 2)]
    assert rows(connection, AWAITED) == []
    assert rows(connection, STATES) == [("loaded", 1), ("quarantined", 2)]


def test_a_batch_quarantined_before_it_was_awaited_is_asked_for(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """The order of loader and heartbeat does not matter."""
    name, jsonl = batch(range(1, 4))
    bucket.put_new(name.key, gzip.compress(jsonl)[:-5])
    load(pool, bucket, today=TODAY)
    await_batch(connection, name.key)
    load(pool, bucket, today=TODAY)

    assert rows(connection, AWAITED) == [(name.key, 1)]


@pytest.mark.usefixtures("poison")
def test_a_batch_that_waits_for_a_loader_is_not_asked_for(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """It is here; another copy would fare no better."""
    name = put_batch(bucket, range(301, 304))
    await_batch(connection, name.key, asked_s_ago=1000)
    load(pool, bucket, today=TODAY)

    assert rows(connection, AWAITED) == [(name.key, 0)]


@pytest.mark.parametrize("key", ["nonsense", "../../etc/passwd", "2026-01-20/pi-06/{file}"])
def test_a_device_that_awaits_what_is_not_its_own_gets_nothing_loaded(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, key: str
) -> None:
    """A report is untrusted: only a device's own batch names are looked up."""
    name, jsonl = batch(range(1, 4), device_id="pi-06")
    bucket.put_new(name.key, gzip.compress(jsonl))
    await_batch(connection, key.format(file=name.key.rpartition("/")[2]))

    assert load(pool, bucket, today=date(2030, 1, 1)).found == 0


splits = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(splits=splits, data=st.data())
def test_any_division_over_objects_in_any_order_gives_the_set(
    pool: ConnectionPool, tmp_path: Path, connection: psycopg.Connection, splits: list[list[int]], data: st.DataObject
) -> None:
    """Batches of the agent and files of others, overlapping, repeated and in several runs: each sale once."""
    connection.execute("truncate scout_bronze.transactions_raw, scout_bronze.files, scout_bronze.quarantine")
    bucket = FolderBucket(tmp_path / str(hash((str(splits), monotonic()))))
    expected = set()
    for number, numbers in enumerate(splits):
        if data.draw(st.booleans()):
            first, last = min(numbers), max(numbers)
            jsonl = jsonl_of(record(seq) for seq in range(first, last + 1))
            name = name_of(jsonl, first, last, resend=number)
            bucket.put_new(name.key, gzip.compress(jsonl))
            expected |= {("record", seq) for seq in range(first, last + 1)}
        else:
            put(bucket, f"{number}.jsonl", b"\n".join(b'{"transaction_id":"%d"}' % each for each in numbers))
            expected |= {("foreign", each) for each in numbers}
        if data.draw(st.booleans()):
            load(pool, bucket, today=TODAY)
        if data.draw(st.booleans()):
            touch(bucket)
    load(pool, bucket, today=TODAY)

    landed = rows(
        connection,
        "select case when seq is null then 'foreign' else 'record' end, "
        "coalesce(seq, (payload::jsonb ->> 'transaction_id')::bigint) from scout_bronze.transactions_raw",
    )
    assert sorted(landed) == sorted(expected)
    assert len(expected) > 0
