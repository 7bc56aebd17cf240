"""From a stick into bronze: what is taken, what is refused, and that nothing comes twice."""

import gzip
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, batch, posted, put_batch
from programs import scout_server
from psycopg_pool import ConnectionPool

from server import tokens
from server.bronze import store
from server.buckets.folder import FolderBucket
from server.database import transact
from server.errors import ServerError
from server.importing import Imported, import_paths
from server.loader import load
from wire.batch import BatchName, content_hash
from wire.manifest import CHECKSUMS, MANIFEST, ManifestEntry, checksums_of, to_line

OTHER = "pi-06"
OTHER_EPOCH = "00000000000000bb"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """An empty stick."""
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def devices(connection: psycopg.Connection) -> None:
    """A database that knows two devices."""
    tokens.add_device(connection, DEVICE)
    tokens.add_device(connection, OTHER)


def exported(stick: Path, *runs: Sequence[int], device_id: str = DEVICE, epoch: str = EPOCH) -> list[BatchName]:
    """Write batches as an agent's export does, with manifest and checksums."""
    names, entries = [], []
    for run in runs:
        name, jsonl = batch(run, device_id=device_id, epoch=epoch)
        content = gzip.compress(jsonl, mtime=0)
        path = stick / name.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        names.append(name)
        digest = content_hash(content)
        entries.append(ManifestEntry.of(name, content_hash(jsonl), len(content), digest))
    manifest = b"".join(map(to_line, entries))
    (stick / MANIFEST).write_bytes(manifest)
    files = [(MANIFEST, content_hash(manifest)), *((entry.key, entry.file_sha256) for entry in entries)]
    (stick / CHECKSUMS).write_bytes(checksums_of(files))
    return names


def run(pool: ConnectionPool, bucket: FolderBucket, *paths: Path, dry_run: bool = False) -> Imported:
    """Import once."""
    return import_paths(pool, bucket, paths, dry_run=dry_run)


def landed(connection: psycopg.Connection, device_id: str = DEVICE) -> list[int]:
    """The seqs that bronze holds of a device."""
    query = "select seq from scout_bronze.transactions_raw where device_id = %s order by seq"
    return [seq for (seq,) in connection.execute(query, [device_id])]


def is_settled(connection: psycopg.Connection, name: BatchName) -> bool:
    """Whether a heartbeat would say so."""
    row = connection.execute("select scout_bronze.is_settled(%s, %s)", [name.device_id, name.key]).fetchone()
    assert row
    return bool(row[0])


def problems(imported: Imported) -> list[tuple[str, str]]:
    """Kind and last part of the path of each problem."""
    return [(problem.kind, Path(problem.path).name) for problem in imported.problems]


def test_a_stick_is_in_bronze_and_settled(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """Each object under its own key in the bucket and in the ledger, as if it had been uploaded."""
    names = exported(stick, range(1, 31), range(31, 41))
    imported = run(pool, bucket, stick)

    assert (imported.objects, imported.rows, imported.stored, imported.accepted) == (2, 40, 2, 40)
    assert imported.problems == ()
    assert landed(connection) == list(range(1, 41))
    assert all(is_settled(connection, name) for name in names)
    assert [info.key for info in bucket.list("")] == sorted(name.key for name in names)
    ledger = connection.execute("select key, bucket, state, accepted from scout_bronze.files order by key").fetchall()
    assert ledger == [(names[0].key, bucket.name, "loaded", 30), (names[1].key, bucket.name, "loaded", 10)]


def test_importing_twice_is_harmless(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """The second time says that it was all there."""
    exported(stick, range(1, 31))
    run(pool, bucket, stick)
    again = run(pool, bucket, stick, stick)

    assert (again.objects, again.stored, again.loaded_before, again.loaded, again.accepted) == (1, 0, 1, 0, 0)
    assert again.problems == ()
    assert len(landed(connection)) == 30


@pytest.mark.parametrize("stick_first", [True, False])
@pytest.mark.parametrize("way", ["bucket", "endpoint"])
def test_the_same_batch_by_another_way_doubles_nothing(
    pool: ConnectionPool,
    bucket: FolderBucket,
    stick: Path,
    way: str,
    stick_first: bool,
) -> None:
    """Before or after."""
    exported(stick, range(1, 31))
    name, jsonl = batch(range(1, 31))

    def by_the_other_way() -> None:
        if way == "endpoint":
            transact(pool, lambda connection: store(connection, [posted(name, jsonl)]))
        elif bucket.version_of(name.key) is None:
            bucket.put_new(name.key, gzip.compress(jsonl, 1))
            load(pool, bucket, today=DAY)

    steps = [lambda: run(pool, bucket, stick), by_the_other_way]
    for step in steps if stick_first else reversed(steps):
        step()

    with pool.connection() as connection:
        assert landed(connection) == list(range(1, 31))
        assert is_settled(connection, name)


def test_a_dry_run_changes_nothing_and_says_all(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """What would be stored, and what is the matter."""
    exported(stick, range(1, 31), range(31, 41))
    (first, _) = sorted(stick.glob("*/*/*.gz"))
    first.write_bytes(b"rubbish")
    imported = run(pool, bucket, stick, dry_run=True)

    assert (imported.objects, imported.stored, imported.loaded) == (1, 1, 0)
    assert problems(imported) == [("damaged", first.name)]
    assert list(bucket.list("")) == []
    assert connection.execute("select * from scout_bronze.files").fetchall() == []


def test_what_is_missing_or_damaged_is_named_and_the_rest_is_taken(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """A file that is gone, one cut off, one with a flipped bit, one empty: each with its reason."""
    names = exported(stick, *(range(first, first + 10) for first in (1, 11, 21, 31, 41)))
    gone, cut, flipped, empty, good = (stick / name.key for name in names)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-20])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 4
    flipped.write_bytes(content)
    empty.write_bytes(b"")
    imported = run(pool, bucket, stick)

    assert problems(imported) == [
        ("missing", gone.name),
        ("damaged", cut.name),
        ("damaged", flipped.name),
        ("damaged", empty.name),
    ]
    assert all(problem.reason for problem in imported.problems)
    assert landed(connection) == list(range(41, 51))
    assert [info.key.rpartition("/")[2] for info in bucket.list("")] == [good.name]


def test_a_stick_that_an_export_left_unfinished_is_taken_as_far_as_it_goes(
    pool: ConnectionPool, bucket: FolderBucket, stick: Path
) -> None:
    """No manifest yet, a half file under another name; and a damaged manifest condemns no good object."""
    (name,) = exported(stick, range(1, 31))
    (stick / name.key).with_name("half.jsonl.gz.part").write_bytes(b"half")
    (stick / MANIFEST).unlink()
    (stick / CHECKSUMS).unlink()
    bare = run(pool, bucket, stick)
    (stick / MANIFEST).write_bytes(b"\x00rubbish\n\xff{}\n")
    damaged = run(pool, bucket, stick)

    assert (bare.accepted, bare.problems) == (30, ())
    assert (damaged.loaded_before, problems(damaged)) == (1, [("damaged", MANIFEST)])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_any_folder_on_the_way_or_one_file_may_be_named(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path, depth: int
) -> None:
    """The stick, a folder in which the export lies, a day, a device, an object."""
    (name,) = exported(stick, range(1, 31))
    path = stick.joinpath(*name.key.split("/")[:depth]) if depth else stick.parent
    assert run(pool, bucket, path).accepted == 30
    assert is_settled(connection, name)


def test_other_files_are_left_alone_and_plain_objects_are_taken(
    pool: ConnectionPool, bucket: FolderBucket, stick: Path
) -> None:
    """What somebody collected by hand, beside what operating systems leave on sticks."""
    folder = stick / "2026-01-20" / DEVICE
    folder.mkdir(parents=True)
    (folder / "data.jsonl").write_bytes(b'{"transaction_id":"a"}\n{"transaction_id":"b"}\nrubbish\n')
    for other in ("System Volume Information/IndexerVolumeGuid", ".Trash-0/2026-01-20/pi-05/x.jsonl", "photo.jpg"):
        path = stick / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff")
    imported = run(pool, bucket, stick)

    assert (imported.objects, imported.rows, imported.accepted, imported.rejected) == (1, 3, 2, 1)
    assert imported.problems == ()


def test_checksums_count_for_what_has_no_hash_in_its_name(
    pool: ConnectionPool, bucket: FolderBucket, stick: Path
) -> None:
    """Made by sha256sum itself."""
    folder = stick / "2026-01-20" / DEVICE
    folder.mkdir(parents=True)
    for name in ("good.jsonl", "bad.jsonl"):
        (folder / name).write_bytes(b'{"transaction_id":"%s"}\n' % name.encode())
    files = [path.relative_to(stick) for path in sorted(folder.iterdir())]
    made = subprocess.run(["sha256sum", *files], cwd=stick, capture_output=True, check=True)
    (stick / CHECKSUMS).write_bytes(made.stdout)
    (folder / "bad.jsonl").write_bytes(b'{"transaction_id":"another"}\n')
    imported = run(pool, bucket, stick)

    assert (imported.accepted, problems(imported)) == (1, [("damaged", "bad.jsonl")])


def test_a_device_nobody_knows_is_refused(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """With what to do first; afterwards the same stick is taken."""
    exported(stick, range(1, 11), device_id="pi-99")
    refused = run(pool, bucket, stick)
    tokens.add_device(connection, "pi-99")

    assert [problem.kind for problem in refused.problems] == ["refused"]
    assert "--name pi-99" in refused.problems[0].reason
    assert refused.stored == 0
    assert run(pool, bucket, stick).accepted == 10


def test_an_object_in_another_devices_folder_is_refused(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """By what the manifest says, or by the device that called that epoch its own."""
    (listed,) = exported(stick, range(1, 11))
    wrong = stick / listed.key.replace(DEVICE, OTHER)
    wrong.parent.mkdir()
    (stick / listed.key).rename(wrong)
    by_manifest = run(pool, bucket, stick)
    connection.execute(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " values (%s, %s, 10, '{}', now(), now())",
        [DEVICE, EPOCH],
    )
    (stick / MANIFEST).unlink()
    (stick / CHECKSUMS).unlink()
    by_epoch = run(pool, bucket, stick)

    assert problems(by_manifest) == [("missing", wrong.name), ("refused", wrong.name)]
    assert problems(by_epoch) == [("refused", wrong.name)]
    assert "of device pi-05" in by_epoch.problems[0].reason
    assert landed(connection, OTHER) == []


def test_hostile_names_and_links_are_refused(
    pool: ConnectionPool, bucket: FolderBucket, stick: Path, tmp_path: Path
) -> None:
    """Nothing outside the stick is read, nothing outside the bucket written, and a pipe blocks nobody."""
    (name,) = exported(stick, range(1, 11))
    outside = tmp_path / "outside" / "2026-01-20" / DEVICE
    outside.mkdir(parents=True)
    (outside / "secret.jsonl").write_bytes(b'{"transaction_id":"secret"}\n')
    folder = stick / "2026-01-20" / DEVICE
    (folder / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (stick / "2026-01-21").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "ev..il\\x.jsonl").write_bytes(b"{}")
    (folder / "b\udcff.jsonl").write_bytes(b"{}")
    (stick / "2026-01-20" / "pi\udcff").mkdir()
    (stick / "2026-01-20" / "pi\udcff" / "y.jsonl").write_bytes(b"{}")
    (folder / "new\nline.jsonl").write_bytes(b"{}")
    (stick / "2026-01-20" / "PI-05").mkdir()
    (stick / "2026-01-20" / "PI-05" / "x.jsonl").write_bytes(b"{}")
    manifest = (stick / MANIFEST).read_bytes()
    (stick / MANIFEST).write_bytes(manifest + manifest.replace(b"2026-01-20", b"../outside"))
    with (stick / CHECKSUMS).open("ab") as checksums:
        checksums.write(b"%s  2026-01-20/../../outside/x\n" % (b"0" * 64))
    imported = run(pool, bucket, stick)

    assert imported.accepted == 10
    assert sorted(problems(imported)) == [
        ("damaged", MANIFEST),
        ("refused", "2026-01-21"),
        ("refused", "b\udcff.jsonl"),
        ("refused", "ev..il\\x.jsonl"),
        ("refused", "link.jsonl"),
        ("refused", "new\nline.jsonl"),
        ("refused", "pipe.jsonl"),
        ("refused", "x.jsonl"),
        ("refused", "y.jsonl"),
    ]
    assert [info.key for info in bucket.list("")] == [name.key]


def test_a_damaged_object_in_the_bucket_gets_a_copy_beside_it(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """The stick mends what an upload or a disk spoilt, and doing it again mends nothing twice."""
    (name,) = exported(stick, range(1, 31))
    bucket.put_new(name.key, b"damaged")
    load(pool, bucket, today=DAY)
    assert not is_settled(connection, name)
    first, second = run(pool, bucket, stick), run(pool, bucket, stick)

    assert [info.key for info in bucket.list("")] == sorted([name.again(1).key, name.key])
    assert (first.stored, first.accepted, second.stored, second.loaded_before) == (1, 30, 0, 1)
    assert is_settled(connection, name)


def test_other_bytes_under_a_plain_name_are_refused(pool: ConnectionPool, bucket: FolderBucket, stick: Path) -> None:
    """Objects are write-once."""
    folder = stick / "2026-01-20" / DEVICE
    folder.mkdir(parents=True)
    (folder / "data.jsonl").write_bytes(b'{"transaction_id":"new"}\n')
    bucket.put_new(f"2026-01-20/{DEVICE}/data.jsonl", b'{"transaction_id":"old"}\n')
    imported = run(pool, bucket, stick)

    assert problems(imported) == [("refused", "data.jsonl")]
    assert bucket.get(f"2026-01-20/{DEVICE}/data.jsonl", 1000) == b'{"transaction_id":"old"}\n'


def test_two_devices_on_one_stick_are_two_devices(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """The technician carried one stick from shop to shop."""
    exported(stick, range(1, 11))
    first = (stick / MANIFEST).read_bytes()
    exported(stick, range(1, 6), device_id=OTHER, epoch=OTHER_EPOCH)
    (stick / MANIFEST).write_bytes(first + (stick / MANIFEST).read_bytes())
    imported = run(pool, bucket, stick)

    assert (imported.objects, imported.problems) == (2, ())
    assert (len(landed(connection)), len(landed(connection, OTHER))) == (10, 5)


def test_a_path_that_is_not_there_is_an_error(pool: ConnectionPool, bucket: FolderBucket, stick: Path) -> None:
    """Nothing is taken when a name on the command line is wrong."""
    exported(stick, range(1, 11))
    with pytest.raises(ServerError, match="Is the stick mounted"):
        run(pool, bucket, stick, stick / "nothing")

    assert list(bucket.list("")) == []


def test_an_object_that_another_loader_is_at_waits_and_is_no_problem(
    pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection, stick: Path
) -> None:
    """The server's own loop may be quicker."""
    exported(stick, range(1, 11))
    put_batch(bucket, range(1, 11))
    run(pool, bucket, stick, dry_run=True)
    with connection.transaction():
        name, _ = batch(range(1, 11))
        connection.execute(
            "insert into scout_bronze.files (bucket, key, version, device_id, state) values (%s, %s, %s, %s, 'found')",
            [bucket.name, name.key, bucket.version_of(name.key), DEVICE],
        )
    with connection.transaction():
        connection.execute("select from scout_bronze.files for update")
        imported = run(pool, bucket, stick)

    assert (imported.waiting, imported.loaded, imported.problems) == (1, 0, ())


def as_json(*arguments: Any) -> tuple[int, dict[str, Any]]:
    """Run the command with --json."""
    told = scout_server("import", *arguments, "--json")
    return told.returncode, json.loads(told.stdout)


def test_the_command_says_what_it_did_and_exits_1_for_problems(
    database_url: str, bucket: FolderBucket, stick: Path
) -> None:
    """In words and as JSON."""
    exported(stick, range(1, 11), range(11, 21))
    given = (stick, "--database-url", database_url, "--bucket", bucket.folder.as_uri())
    dry = as_json(*given, "--dry-run")
    words = scout_server("import", *given)
    next(stick.glob("*/*/*.gz")).unlink()
    (stick / "2026-01-20" / DEVICE / "b\udcff\n.jsonl").write_bytes(b"{}")
    missing = scout_server("import", *given)

    assert (dry[0], dry[1]["stored"], dry[1]["dry_run"]) == (0, 2, True)
    assert words.returncode == 0
    assert "20 sales new" in words.stdout
    assert missing.returncode == 1
    assert "missing: " in missing.stderr
    assert "\\udcff\\n.jsonl" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.root
def test_what_root_imports_belongs_to_the_servers_account(tmp_path: Path) -> None:
    """Or the server couldn't read its own bucket."""
    (tmp_path / "bucket").mkdir()
    os.chown(tmp_path / "bucket", 4242, 4242)
    bucket = FolderBucket(tmp_path / "bucket")
    name = put_batch(bucket, range(1, 3))

    path = bucket.folder / name.key
    assert path.is_file()
    assert {place.stat().st_uid for place in (path, path.parent, path.parent.parent)} == {4242}
