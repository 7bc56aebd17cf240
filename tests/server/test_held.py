"""What an operator does with the ledger and with what is held: nothing is lost by it, and nothing doubled."""

import gzip
import json
import threading
from pathlib import Path

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, jsonl_of, name_of, posted, put_batch, record
from programs import scout_server
from psycopg_pool import ConnectionPool

from server import ledger, operator, quarantine, tokens
from server.bronze import store
from server.buckets.folder import FolderBucket
from server.database import transact
from server.loader import load
from server.quarantine import NotReplayable, Replayed
from wire.batch import BatchName
from wire.record import to_line

KEY = f"{DAY}/{DEVICE}/data.jsonl"
LINES = b'{"n":1}\nrubbish\n\n{"n":3}\n'


@pytest.fixture(autouse=True)
def device(connection: psycopg.Connection) -> None:
    """A database that knows the device."""
    tokens.add_device(connection, DEVICE)


def payloads(connection: psycopg.Connection) -> list[str]:
    """What bronze holds, in the order of arrival."""
    return [text for (text,) in connection.execute("select payload from scout_bronze.transactions_raw order by raw_id")]


def held(connection: psycopg.Connection, ended: bool = False) -> list[quarantine.Held]:
    """What waits for a decision."""
    return quarantine.list_held(connection, device_id=DEVICE, ended=ended, limit=100)


def put(pool: ConnectionPool, bucket: FolderBucket, body: bytes, key: str = KEY) -> None:
    """Upload an object, in the place of any other, and load it."""
    path = Path(bucket.folder) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    bucket.put_new(key, body)
    load(pool, bucket, today=DAY)


def batch_with_a_bad_line(bucket: FolderBucket) -> tuple[BatchName, bytes]:
    """Upload a batch of three whose second record can't be read; give it mended."""
    good = [to_line(record(seq)) for seq in (1, 2, 3)]
    bad = good[1].replace(b"150.50", b"NaN")
    jsonl = b"".join(line + b"\n" for line in (good[0], bad, good[2]))
    name = name_of(jsonl, 1, 3)
    bucket.put_new(name.key, gzip.compress(jsonl))
    return name, good[1]


def status(connection: psycopg.Connection) -> operator.DeviceStatus:
    """The device's line of `status`."""
    (only,) = [each for each in operator.ingestion_status(connection) if each.device_id == DEVICE]
    return only


def refused_rows(connection: psycopg.Connection) -> int:
    """How many rows count as refused."""
    (count,) = connection.execute("select rows_refused from scout_bronze.ingestion_status").fetchone() or (None,)
    assert isinstance(count, int)
    return count


def test_a_mended_line_is_taken_and_what_came_is_kept(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Under the place that it had, and counted as the others."""
    put(pool, bucket, LINES)
    (line,) = held(connection)
    done = quarantine.replay(pool, line.quarantine_id, b' {"n":2}\r\n')
    kept = connection.execute("select raw, edited, outcome from scout_bronze.quarantine").fetchone()
    (row,) = connection.execute("select line, object_key from scout_bronze.transactions_raw where payload like '%2}'")

    assert (done.accepted, done.duplicates) == (1, 0)
    assert payloads(connection) == ['{"n":1}', '{"n":3}', '{"n":2}']
    assert row == (2, KEY)
    assert kept == (b"rubbish", b' {"n":2}\r\n', "replayed")
    assert held(connection) == []
    assert (status(connection).rows_loaded, refused_rows(connection)) == (3, 0)


def test_what_its_sender_mends_too_is_not_doubled(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Neither where it has no id of its own: the same text at the same place is the same sale."""
    put(pool, bucket, LINES)
    (line,) = held(connection)
    quarantine.replay(pool, line.quarantine_id, b'{"n":2}')
    put(pool, bucket, LINES.replace(b"rubbish", b'{"n":2}'))

    assert sorted(payloads(connection)) == ['{"n":1}', '{"n":2}', '{"n":3}']


def test_a_line_is_replayed_once(pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection) -> None:
    """Also when two operators do it at the same moment, each with other bytes."""
    put(pool, bucket, LINES)
    (line,) = held(connection)
    done: list[Replayed | NotReplayable] = []

    def replay(text: bytes) -> None:
        try:
            done.append(quarantine.replay(pool, line.quarantine_id, text))
        except NotReplayable as problem:
            done.append(problem)

    both = [threading.Thread(target=replay, args=(b'{"n":%d}' % number,)) for number in (20, 21)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert sorted(type(each).__name__ for each in done) == ["NotReplayable", "Replayed"]
    assert len(payloads(connection)) == 3


def test_what_an_upgrade_takes_is_replayed_as_it_is_and_loading_again_doubles_nothing(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both orders: the line has one identity, whichever way it comes in."""
    with monkeypatch.context() as before:
        before.setattr("wire.record.PAYLOAD_BYTES_MAX", 8)
        put(pool, bucket, b'{"n":1}\n\n{"a long one":2}\n{"n":3}\n')
    assert len(payloads(connection)) == 2
    (line,) = held(connection)
    quarantine.replay(pool, line.quarantine_id)
    again = ledger.reload(pool, bucket, [KEY])

    assert (again.loaded, again.accepted, again.duplicates) == (1, 0, 3)
    assert payloads(connection) == ['{"n":1}', '{"n":3}', '{"a long one":2}']
    assert connection.execute("select lines, accepted, duplicates, rejected from scout_bronze.files").fetchall() == [
        (3, 2, 1, 0)
    ]


def test_a_record_keeps_its_number_and_id(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Another seq or id is refused, with the reason, and the line still waits."""
    _, mended = batch_with_a_bad_line(bucket)
    load(pool, bucket, today=DAY)
    (line,) = held(connection)
    other_id = to_line(record(2, fork=1))
    for wrong, why in ((to_line(record(7)), "has seq 7"), (other_id, "another id"), (b"{}", "still refused")):
        with pytest.raises(NotReplayable, match=why):
            quarantine.replay(pool, line.quarantine_id, wrong)
    with pytest.raises(NotReplayable, match="still refused"):
        quarantine.replay(pool, line.quarantine_id)
    done = quarantine.replay(pool, line.quarantine_id, mended + b"\n")
    rows = connection.execute("select epoch, seq, id::text, boot from scout_bronze.transactions_raw order by seq")

    assert done.accepted == 1
    assert rows.fetchall() == [(EPOCH, seq, record(seq).id, "b0075") for seq in (1, 2, 3)]


def test_a_body_that_could_not_be_divided_is_mended_as_a_whole(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """One line in quarantine, three sales in it."""
    put(pool, bucket, b'[{"n":1},{"n":2},\n{"n":3}', f"{DAY}/{DEVICE}/data.json")
    (line,) = held(connection)
    with pytest.raises(NotReplayable, match="still refused"):
        quarantine.replay(pool, line.quarantine_id, b'[{"n":1},{"n":2},7]')
    with pytest.raises(NotReplayable, match="no transaction"):
        quarantine.replay(pool, line.quarantine_id, b"[]")
    assert payloads(connection) == []
    done = quarantine.replay(pool, line.quarantine_id, b'[{"n":1},{"n":2},\n{"n":3}]')

    assert done.accepted == 3
    assert payloads(connection) == ['{"n":1}', '{"n":2}', '{"n":3}']
    assert (status(connection).rows_loaded, refused_rows(connection)) == (3, 0)


def test_what_is_discarded_stays_held_and_waits_no_more(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """A line and an object; the reason is kept, and a line can be replayed after all."""
    put(pool, bucket, LINES)
    put(pool, bucket, b"rubbish", f"{DAY}/{DEVICE}/data.jsonl.gz")
    before = status(connection)
    numbers = [each.quarantine_id for each in held(connection)]
    first = quarantine.discard(pool, numbers, "the technician's tests")
    second = quarantine.discard(pool, numbers, "again")
    after = status(connection)

    assert sorted(first) == sorted(numbers)
    assert len(numbers) == 2
    assert second == []
    assert held(connection) == []
    assert {each.why for each in held(connection, ended=True)} == {"the technician's tests"}
    assert (before.files_quarantined, before.last_error is None) == (1, False)
    assert (after.files_quarantined, after.last_error) == (0, None)
    (line,) = [each for each in held(connection, ended=True) if each.kind == "line"]
    assert quarantine.replay(pool, line.quarantine_id, b'{"n":2}').accepted == 1


def test_rows_deleted_by_hand_come_back_when_their_object_is_loaded_once_more(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """What is still there is known, the ledger counts as before, and the batch stays settled."""
    name = put_batch(bucket, range(1, 11))
    load(pool, bucket, today=DAY)
    (file,) = ledger.find_files(connection, name.key)
    connection.execute("delete from scout_bronze.transactions_raw where seq in (3, 4)")
    before = ledger.rows_held(connection, file)
    summary = ledger.reload(pool, bucket, [str(file.file_id)])
    (again,) = ledger.find_files(connection, name.key)

    assert (before, ledger.rows_held(connection, again)) == (8, 10)
    assert (summary.loaded, summary.accepted, summary.duplicates) == (1, 2, 8)
    assert (again.state, again.lines, again.accepted, again.duplicates) == ("loaded", 10, 10, 0)
    assert status(connection).rows_loaded == 10
    assert connection.execute("select scout_bronze.is_settled(%s, %s)", [DEVICE, name.key]).fetchone() == (True,)


def test_of_what_others_sent_all_rows_are_counted_that_bronze_holds(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Also once some came back by a later load than the others."""
    put(pool, bucket, b'{"n":1}\n{"n":2}\n{"n":3}\n')
    (file,) = ledger.find_files(connection, KEY)
    connection.execute("delete from scout_bronze.transactions_raw where line = 2")
    before = ledger.rows_held(connection, file)
    ledger.reload(pool, bucket, [KEY])
    (again,) = ledger.find_files(connection, KEY)

    assert (before, ledger.rows_held(connection, again)) == (2, 3)
    assert (again.accepted, again.duplicates) == (3, 0)


def test_a_mended_object_is_loaded_and_its_quarantine_is_over(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Somebody restored it from elsewhere, under the name it has."""
    jsonl = jsonl_of(record(seq) for seq in (1, 2))
    name = name_of(jsonl, 1, 2)
    put(pool, bucket, b"damaged", name.key)
    (damaged,) = held(connection)
    with pytest.raises(NotReplayable, match="files reload"):
        quarantine.replay(pool, damaged.quarantine_id)
    (Path(bucket.folder) / name.key).unlink()
    bucket.put_new(name.key, gzip.compress(jsonl))
    summary = ledger.reload(pool, bucket, [name.key])

    assert summary.accepted == 2
    assert {file.state for file in ledger.find_files(connection, name.key)} == {"loaded"}
    assert held(connection) == []
    assert status(connection).files_quarantined == 0


def test_loading_again_never_unsettles_what_cannot_be_read_any_more(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Gone, damaged since, or never an object: each says so, and its lines stay in bronze."""
    gone = put_batch(bucket, range(1, 3))
    spoilt = put_batch(bucket, range(3, 5))
    load(pool, bucket, today=DAY)
    jsonl = jsonl_of(record(seq) for seq in (5, 6))
    sent = name_of(jsonl, 5, 6)
    transact(pool, lambda connection: store(connection, [posted(sent, jsonl)]))
    (Path(bucket.folder) / gone.key).unlink()
    path = Path(bucket.folder) / spoilt.key
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    reasons = {gone: "gone from the bucket", spoilt: "can't be read any more", sent: "no object to load from"}
    for name, why in reasons.items():
        with pytest.raises(ledger.NotLoadable, match=why):
            ledger.reload(pool, bucket, [name.key])
    with pytest.raises(ledger.UnknownFile, match="files list"):
        ledger.reload(pool, bucket, ["4711"])
    settled = [
        connection.execute("select scout_bronze.is_settled(%s, %s)", [DEVICE, name.key]).fetchone()
        for name in (gone, spoilt, sent)
    ]

    assert settled == [(True,)] * 3
    assert len(payloads(connection)) == 6


def test_the_ledger_is_listed_by_device_state_and_day(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """The newest first, and no more than asked for."""
    put(pool, bucket, b'{"n":1}\n')
    put(pool, bucket, b"rubbish", f"{DAY}/{DEVICE}/bad.gz")
    put(pool, bucket, b'{"n":2}\n', f"2026-01-19/{DEVICE}/older.jsonl")
    put(pool, bucket, b'{"n":3}\n', f"{DAY}/pi-06/data.jsonl")

    def keys(**asked: object) -> list[str]:
        wanted = {"device_id": None, "state": None, "day": None, "limit": 10} | asked
        return [file.key.partition("/")[2] for file in ledger.list_files(connection, **wanted)]

    assert keys() == ["pi-06/data.jsonl", f"{DEVICE}/older.jsonl", f"{DEVICE}/bad.gz", f"{DEVICE}/data.jsonl"]
    assert keys(limit=1) == ["pi-06/data.jsonl"]
    assert keys(device_id="pi-06") == ["pi-06/data.jsonl"]
    assert keys(state="quarantined") == [f"{DEVICE}/bad.gz"]
    assert keys(day=DAY, device_id=DEVICE) == [f"{DEVICE}/bad.gz", f"{DEVICE}/data.jsonl"]


def test_the_commands_say_what_they_did(
    pool: ConnectionPool, bucket: FolderBucket, database_url: str, tmp_path: Path
) -> None:
    """On a terminal and as JSON; a number that is wrong is named, and the exit status says so."""
    put(pool, bucket, LINES)
    where = ("--database-url", database_url)
    listed = scout_server("quarantine", "list", *where)
    (line,) = json.loads(scout_server("quarantine", "list", "--json", *where).stdout)
    number = str(line["quarantine_id"])
    raw = scout_server("quarantine", "show", number, "--raw", *where)
    shown = scout_server("quarantine", "show", number, *where)
    (tmp_path / "line").write_text('{"n":2}')
    refused = scout_server("quarantine", "replay", number, "4711", *where)
    replayed = scout_server("quarantine", "replay", number, "--with", tmp_path / "line", *where)
    none_left = scout_server("quarantine", "replay", "--all", *where)
    wrong = scout_server("quarantine", "replay", *where)
    unknown = scout_server("quarantine", "discard", "4711", "--why", "x", *where)
    files = scout_server("files", "list", *where)
    file = scout_server("files", "show", KEY, *where)
    again = scout_server("files", "reload", KEY, "--bucket", Path(bucket.folder).as_uri(), *where)

    assert f"{KEY} line 2" in listed.stdout
    assert "not valid JSON" in shown.stdout
    assert raw.stdout == "rubbish"
    assert "rubbish" not in listed.stdout + shown.stdout + refused.stderr + file.stdout
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 2)
    assert (replayed.returncode, replayed.stdout) == (0, f"{number}: 1 new in bronze, 0 known already\n")
    assert (none_left.returncode, "no line waits" in none_left.stderr) == (0, True)
    assert (wrong.returncode, unknown.returncode) == (64, 1)
    assert KEY in files.stdout
    assert "rows_held       2" in file.stdout
    assert (again.returncode, "1 loaded" in again.stdout) == (0, True)
