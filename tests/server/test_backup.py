"""Backup and restore: what is complete, what is refused, and that what comes back is what was."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from agent_kit import until
from bucket_forms import Form
from deliveries import put_batch
from disks import tmpfs
from programs import CLEAN, PROGRAM, data_folder
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs
from typer.testing import CliRunner

from server import dump, schema
from server.backup import BackupFolder, BackupHeld, Manifest, Source, back_up
from server.bucket import Bucket, BucketUnavailable
from server.buckets.folder import FolderBucket
from server.cli import app
from server.copies import copy_objects
from server.data_directory import RESTORING
from server.database import open_pool
from server.errors import Misconfigured, ServerError
from server.etl import run_etl
from server.loader import load
from server.restore import Restored, check, choose, restore_directory, restore_pieces
from server.schema import migrate

DAY = date(2026, 1, 20)
NOW = datetime(2026, 1, 21, 2, 30, tzinfo=UTC)
SECRET = "a secret of the tests that is long enough"
CHANGED_BY_A_RESTORE = ("scout_edge.settings", "scout_edge.models")
DEADLINE_S = 60


@dataclass(frozen=True)
class Done:
    """What a command said."""

    status: int
    stdout: str
    stderr: str


def command(*words: str | Path, **environment: str) -> Done:
    """Run a command in this process: a program of its own needs a second to begin with."""
    try:
        result = CliRunner().invoke(app, [str(word) for word in words], env=environment)
    finally:
        structlog.reset_defaults()
    assert result.exception is None or isinstance(result.exception, (ServerError, SystemExit)), result.exception
    return Done(result.exit_code, result.stdout, f"{result.stderr}{result.exception or ''}")


@dataclass
class Warehouse:
    """A database and a bucket with sales in them, and the folder where they are backed up."""

    url: str
    bucket: FolderBucket
    folder: Path

    def sell(self, first: int, last: int) -> None:
        """Let one batch and one stranger's object come as far as silver."""
        put_batch(self.bucket, range(first, last + 1))
        line = b'{"transaction_id":"f-%d","store_id":"102","peso_value":2.50}\n' % first
        self.bucket.put_new(f"{DAY}/pi-06/{first}.jsonl", line)
        with open_pool(self.url) as pool:
            load(pool, self.bucket, today=DAY)
            run_etl(pool)

    def source(self, **environment: str) -> Source:
        """What is backed up."""
        return Source(self.url, self.bucket, None, CLEAN | environment)

    def back_up(self, days: int = 0, **options: Any) -> Manifest:
        """Back up, so many days later."""
        with BackupFolder(self.folder, writing=True) as held:
            return back_up(self.source(), held, program="1.0", now=NOW + timedelta(days=days), **options)

    def run(self, *words: str | Path, **environment: str) -> Done:
        """Run a command as an operator does."""
        return command(*words, DATABASE_URL=self.url, SCOUT_BUCKET=self.bucket.folder.as_uri(), **environment)

    def restored(self, url: str, bucket: Bucket, at: str | None = None) -> Restored:
        """Restore into another database and bucket."""
        with BackupFolder(self.folder, writing=False) as held:
            return restore_pieces(
                choose(held, at), url, bucket, environment=CLEAN, now=NOW, progress=lambda _done: None
            )

    def checked(self) -> Restored:
        """What a look at all of it says."""
        with BackupFolder(self.folder, writing=False) as held:
            return check(choose(held, None))


@pytest.fixture
def warehouse(database_url: str, tmp_path: Path) -> Warehouse:
    """A warehouse in which two devices have delivered four sales."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for device in ("pi-05", "pi-06"):
            connection.execute("insert into scout_edge.devices (device_id, source) values (%s, %s)", (device, device))
    (tmp_path / "backup").mkdir()
    made = Warehouse(database_url, FolderBucket(tmp_path / "bucket"), tmp_path / "backup")
    made.sell(1, 3)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> FolderBucket:
    """Another, empty bucket."""
    return FolderBucket(tmp_path / "elsewhere")


def contents(url: str) -> dict[str, tuple[int, str]]:
    """How many rows each table of ours has, and a hash of all of them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'; set search_path = ''")
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relkind in ('r', 'm')"
            " and relnamespace::regnamespace::text = any(%s)",
            (list(dump.SCHEMAS),),
        )
        query = "select count(*), coalesce(md5(string_agg(t::text, E'\\n' order by t::text)), '') from {} t"
        found = {name: connection.execute(query.format(name).encode()).fetchone() for (name,) in tables}
    return {name: row for name, row in found.items() if row and name not in CHANGED_BY_A_RESTORE}


def definitions(url: str) -> set[tuple[str, ...]]:
    """What each table, view and function of ours is, and who may use it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set search_path = ''")
        return set(
            connection.execute(
                "select nspname || '.' || relname, relkind::text, coalesce(relacl::text, ''),"
                " coalesce(pg_get_viewdef(pg_class.oid), '')"
                " from pg_class join pg_namespace on pg_namespace.oid = relnamespace where nspname = any(%(names)s)"
                " union all select oid::regprocedure::text, 'f', coalesce(proacl::text, ''), md5(prosrc) from pg_proc"
                " where pronamespace::regnamespace::text = any(%(names)s) or proname = 'heartbeat'",
                {"names": list(dump.SCHEMAS)},
            )
        )


def objects(bucket: Bucket) -> dict[str, bytes]:
    """All that a bucket holds."""
    return {item.key: bucket.get(item.key, 1 << 20) for item in bucket.list("")}


def damage(path: Path) -> None:
    """Change one byte in the middle, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_comes_back_is_what_was(warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket) -> None:
    """Every row of every table, every view, function and right, every object; and nothing is left to migrate."""
    warehouse.back_up()
    before = contents(warehouse.url)
    restored = warehouse.restored(empty_database_url, elsewhere)

    assert before["scout_bronze.transactions_raw"][0] == before["scout.silver_transactions"][0] == 4
    assert contents(empty_database_url) == before
    assert definitions(empty_database_url) == definitions(warehouse.url)
    assert objects(elsewhere) == objects(warehouse.bucket)
    assert (restored.objects, restored.damaged, restored.missing) == (2, [], [])
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        assert migrate(connection) == ()


def test_a_restored_server_asks_every_device_again_and_renews_no_token(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket
) -> None:
    """As after-restore does by hand: a new generation, and renewals that wait for an operator."""
    settings = "select generation, renewals_held_since is not null from scout_edge.settings"
    warehouse.back_up()
    warehouse.restored(empty_database_url, elsewhere)
    found = []
    for url in (warehouse.url, empty_database_url):
        with psycopg.connect(url) as connection:
            found.append(connection.execute(settings).fetchone())

    assert found[0] is not None
    assert found[1] is not None
    assert found[0][0] != found[1][0]
    assert (found[0][1], found[1][1]) == (False, True)


def test_what_came_after_the_dump_is_loaded_from_the_copied_objects(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket
) -> None:
    """An older dump is restored with all objects that were ever copied."""
    first = warehouse.back_up()
    warehouse.sell(4, 6)
    later = warehouse.back_up(days=1)
    warehouse.restored(empty_database_url, elsewhere, at=first.name)
    with open_pool(empty_database_url) as pool:
        load(pool, elsewhere, today=NOW.date(), sweep=True)
        run_etl(pool)

    assert (first.moment.rows["bronze"], later.moment.rows["bronze"]) == (4, 8)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select count(*) from scout.silver_transactions").fetchone() == (8,)


def test_only_new_objects_are_copied_and_old_dumps_go_but_no_object(warehouse: Warehouse) -> None:
    """What a year of daily backups costs is the new objects, and as many dumps as are to be kept."""
    warehouse.back_up()
    warehouse.sell(4, 6)
    second = warehouse.back_up(days=1, keep=2)
    third = warehouse.back_up(days=2, keep=2)
    names = sorted(path.name for path in warehouse.folder.glob("2*"))

    assert second.objects is not None
    assert (second.objects.count, second.objects.copied) == (4, 2)
    assert third.objects is not None
    assert (third.objects.count, third.objects.copied) == (4, 0)
    assert names == sorted(f"{one.name}.{kind}" for one in (second, third) for kind in ("dump", "json"))
    assert objects(FolderBucket(warehouse.folder / "bucket")) == objects(warehouse.bucket)


def test_a_clock_that_went_back_costs_the_newest_backup_nothing(warehouse: Warehouse) -> None:
    """By its name it is the oldest, and it is not the one that goes."""
    warehouse.back_up(days=5)
    warehouse.back_up(days=6)
    made = warehouse.back_up(days=0, keep=1)

    assert sorted(path.stem for path in warehouse.folder.glob("2*.json")) == [made.name]


def test_an_object_that_somebody_replaced_is_counted_and_the_first_is_kept(warehouse: Warehouse) -> None:
    """The copy of what the ledger knows is not lost by what somebody does to the bucket."""
    key = f"{DAY}/pi-06/1.jsonl"
    warehouse.back_up()
    was = warehouse.bucket.get(key, 1 << 20)
    (warehouse.bucket.folder / key).unlink()
    warehouse.bucket.put_new(key, b"{}\n")
    second = warehouse.back_up(days=1)

    assert second.objects is not None
    assert second.objects.replaced == 1
    assert (warehouse.folder / "bucket" / key).read_bytes() == was
    assert warehouse.checked().damaged == []


@contextmanager
def _held_up(url: str) -> Iterator[None]:
    """Keep pg_dump waiting, for a table that nothing else of a backup needs."""
    with psycopg.connect(url) as connection:
        connection.execute("lock table scout_edge.tokens in access exclusive mode")
        yield


def _started(warehouse: Warehouse) -> subprocess.Popen[bytes]:
    environment = CLEAN | {"DATABASE_URL": warehouse.url, "SCOUT_BUCKET": warehouse.bucket.folder.as_uri()}
    command = [*PROGRAM, "backup", str(warehouse.folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_backup_killed_in_the_middle_of_the_dump_is_none_and_the_next_one_clears_up(warehouse: Warehouse) -> None:
    """The one before is as it was; pg_dump ends too; and no password was in its command line."""
    first = warehouse.back_up()
    with _held_up(warehouse.url):
        process = _started(warehouse)
        until(lambda: len(list(warehouse.folder.glob("*.partial"))) == 1, "it dumps", DEADLINE_S)
        until(lambda: _children(process.pid) != [], "pg_dump runs", DEADLINE_S)
        (dumping,) = _children(process.pid)
        command = Path(f"/proc/{dumping}/cmdline").read_bytes()
        process.kill()
        process.wait(DEADLINE_S)
    until(lambda: not Path(f"/proc/{dumping}").exists(), "pg_dump ends", DEADLINE_S)
    with BackupFolder(warehouse.folder, writing=False) as held:
        names, chosen = held.names(), choose(held, None)
    second = warehouse.back_up(days=1)

    assert names == [first.name]
    assert chosen.manifest == first
    assert list(warehouse.folder.glob("*.partial")) == []
    assert warehouse.checked().backup == second.name
    assert b"pg_dump" in command
    assert str(psycopg.conninfo.conninfo_to_dict(warehouse.url)["password"]).encode() not in command


class _Breaking(FolderBucket):
    """A bucket that is away after so many objects."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self._left = after

    def get(self, key: str, bytes_max: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise BucketUnavailable
        return super().get(key, bytes_max)


@pytest.mark.parametrize("after", [0, 2])
def test_copying_that_was_broken_off_goes_on(warehouse: Warehouse, after: int) -> None:
    """After any number of objects: no backup is made of it, and the next one has all of them."""
    warehouse.sell(4, 6)
    source = Source(warehouse.url, _Breaking(warehouse.bucket.folder, after), None, CLEAN)
    with BackupFolder(warehouse.folder, writing=True) as held, pytest.raises(BucketUnavailable):
        back_up(source, held, program="1.0", now=NOW)
    assert list(warehouse.folder.glob("*.json")) == []
    made = warehouse.back_up(days=1)
    checked = warehouse.checked()

    assert made.objects is not None
    assert (checked.objects, checked.damaged, checked.missing) == (made.objects.count, [], [])
    assert made.objects.count == len(objects(warehouse.bucket)) == 4


def test_each_line_of_the_list_is_written_before_its_copy_is_there(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between the two leaves a line without a copy, and never a copy that nobody knows the hash of."""
    listed_then: dict[str, bool] = {}
    put_new = FolderBucket.put_new

    def put_and_look(copies: FolderBucket, key: str, body: bytes) -> None:
        listed_then[key] = key in (warehouse.folder / "objects.jsonl").read_text()
        put_new(copies, key, body)

    monkeypatch.setattr(FolderBucket, "put_new", put_and_look)
    warehouse.back_up()

    assert listed_then == dict.fromkeys(objects(warehouse.bucket), True)
    assert len(listed_then) == 2


def test_the_database_knows_when_it_was_backed_up_last(warehouse: Warehouse) -> None:
    """Only a complete backup counts: one that fails each night is missed."""
    broken = Source(warehouse.url, _Breaking(warehouse.bucket.folder, 0), None, CLEAN)
    with psycopg.connect(warehouse.url, autocommit=True) as connection:

        def backed_up_at() -> datetime | None:
            row = connection.execute("select backed_up_at from scout_edge.settings").fetchone()
            assert row
            return row[0]

        with BackupFolder(warehouse.folder, writing=True) as held, pytest.raises(BucketUnavailable):
            back_up(broken, held, program="1.0", now=NOW)
        assert backed_up_at() is None
        warehouse.back_up(days=1)
        first = backed_up_at()
        warehouse.back_up(days=2)
        second = backed_up_at()

    assert first is not None
    assert second is not None
    assert first < second


def test_whoever_may_only_read_the_database_backs_it_up_too(warehouse: Warehouse) -> None:
    """Then nobody is told, which is said."""
    reader = make_conninfo(warehouse.url, options="-c default_transaction_read_only=on")
    with capture_logs() as said, BackupFolder(warehouse.folder, writing=True) as held:
        back_up(replace(warehouse.source(), url=reader), held, program="1.0", now=NOW)

    assert [event for event in said if event["event"] == "backup_not_noted"]
    assert warehouse.checked().objects == 2


def test_a_line_that_a_power_cut_left_half_written_harms_nothing(warehouse: Warehouse) -> None:
    """Nor does a line whose object never came."""
    warehouse.back_up()
    listed = warehouse.folder / "objects.jsonl"
    lines = listed.read_bytes().splitlines(keepends=True)
    key = json.loads(lines[-1])["name"]
    (warehouse.folder / "bucket" / key).unlink()
    listed.write_bytes(b"".join(lines) + lines[0][:20])
    warehouse.back_up(days=1)
    checked = warehouse.checked()

    assert (checked.damaged, checked.missing) == ([], [])
    assert len(listed.read_bytes().splitlines()) == len(lines) + 1


def test_two_backups_at_once_are_one_too_many(warehouse: Warehouse) -> None:
    """The second says so and does nothing; a restore waits as well."""
    with BackupFolder(warehouse.folder, writing=True):
        second = warehouse.run("backup", warehouse.folder)
        restore = warehouse.run("restore", warehouse.folder, "--dry-run")
        with pytest.raises(BackupHeld):
            warehouse.back_up()

    assert (second.status, restore.status) == (1, 1)
    assert "another backup or restore works in" in second.stderr
    assert "another backup or restore works in" in restore.stderr


def test_a_file_that_may_not_grow_costs_this_backup_and_no_other(warehouse: Warehouse) -> None:
    """A disk's error is one sentence, and what was complete stays so."""
    first = warehouse.back_up()
    environment = CLEAN | {"DATABASE_URL": warehouse.url, "SCOUT_BUCKET": warehouse.bucket.folder.as_uri()}
    limited = ["prlimit", "--fsize=20000", *PROGRAM, "backup", str(warehouse.folder)]
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    assert done.returncode == 1
    assert "complete ones in" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(warehouse.folder.glob("*.partial")) == []
    assert warehouse.checked().backup == first.name


@pytest.mark.root
def test_a_full_disk_costs_this_backup_and_no_other(warehouse: Warehouse, tmp_path: Path) -> None:
    """With room again, the next one is complete."""
    with tmpfs(tmp_path / "small", "3m") as small:
        warehouse.folder = small
        first = warehouse.back_up()
        (small / "ballast").write_bytes(b"x" * (shutil.disk_usage(small).free - 100_000))
        done = warehouse.run("backup", small)
        checked = warehouse.checked()
        (small / "ballast").unlink()
        second = warehouse.run("backup", small, "--keep", "1", "--json")

        assert done.status == 1
        assert "No space left on device" in done.stderr
        assert checked.backup == first.name
        assert second.status == 0, second.stderr
        assert json.loads(second.stdout)["kept"] == 1


@pytest.mark.parametrize("what", ["dump", "json"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket, what: str
) -> None:
    """And the others are named, one of which may be restored."""
    first = warehouse.back_up()
    second = warehouse.back_up(days=1)
    damaged = warehouse.folder / f"{second.name}.{what}"
    if what == "dump":
        damage(damaged)
    else:
        damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(Misconfigured, match=first.name):
        warehouse.restored(empty_database_url, elsewhere)
    untouched = contents(empty_database_url)
    warehouse.restored(empty_database_url, elsewhere, at=first.name)

    assert untouched == {}
    assert contents(empty_database_url) == contents(warehouse.url)


def test_damaged_and_missing_objects_are_named_and_all_others_restored(
    warehouse: Warehouse, empty_database_url: str, tmp_path: Path
) -> None:
    """With exit status 1; of a line of the list that can't be read, the line is named."""
    warehouse.sell(4, 6)
    warehouse.back_up()
    keys = sorted(objects(warehouse.bucket))
    damage(warehouse.folder / "bucket" / keys[0])
    (warehouse.folder / "bucket" / keys[1]).unlink()
    listed = warehouse.folder / "objects.jsonl"
    lines = listed.read_bytes().splitlines(keepends=True)
    (number,) = [n for n, line in enumerate(lines) if keys[2].encode() in line]
    lines[number] = b"\x00" + lines[number][1:]
    listed.write_bytes(b"".join(lines))
    target = tmp_path / "target"
    target.mkdir()
    words = ("restore", warehouse.folder, "--database-url", empty_database_url, "--bucket", target.as_uri())
    done = command(*words, "--json")
    told = json.loads(done.stdout)

    assert done.status == 1, done.stderr
    assert told["damaged"] == [keys[0]]
    assert told["missing"] == sorted([keys[1], f"line {number + 1} of objects.jsonl"])
    assert set(objects(FolderBucket(target))) == {keys[3]}
    assert contents(empty_database_url) == contents(warehouse.url)


def test_a_wrong_folder_is_refused_and_left_as_it_is(warehouse: Warehouse, tmp_path: Path) -> None:
    """One that isn't there, as of a disk that isn't mounted; one that holds other things; one within the bucket."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter").write_text("dear")
    within = warehouse.bucket.folder / "backup"
    within.mkdir()
    wrong = {tmp_path / "nowhere": "there is no folder", other: "is no backup of", within: "would be lost with it"}
    told = {folder: warehouse.run("backup", folder) for folder in wrong}
    never = warehouse.run("restore", warehouse.folder)

    assert {done.status for done in told.values()} == {1}
    assert all(wrong[folder] in done.stderr for folder, done in told.items())
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in other.iterdir()] == ["letter"]
    assert list(within.iterdir()) == []
    assert never.status == 1
    assert "is no backup of" in never.stderr


def test_nothing_is_restored_over_a_database_that_holds_anything_of_ours(
    warehouse: Warehouse, tmp_path: Path, elsewhere: FolderBucket
) -> None:
    """Nor into a directory that holds anything; both are as they were, and the bucket too."""
    warehouse.back_up()
    warehouse.sell(4, 6)
    before = contents(warehouse.url)
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "letter").write_text("dear")
    with pytest.raises(Misconfigured, match="nothing is ever restored over it"):
        warehouse.restored(warehouse.url, elsewhere)
    refused = command("restore", warehouse.folder, "--data", directory)

    assert contents(warehouse.url) == before
    assert objects(elsewhere) == {}
    assert "nothing is ever restored over it" in refused.stderr
    assert [path.name for path in directory.iterdir()] == ["letter"]


def test_a_backup_of_a_newer_version_is_refused(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket
) -> None:
    """Older views over newer tables would be neither."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, checksum) values ('999', 'later', 'x')"
        )
    warehouse.back_up()
    with pytest.raises(schema.NewerSchema, match="999_later"):
        warehouse.restored(empty_database_url, elsewhere)

    assert contents(empty_database_url) == {}


def test_what_is_there_already_in_a_bucket_stays(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket
) -> None:
    """The database alone was lost: the bucket is added to, never replaced in."""
    warehouse.back_up()
    key = f"{DAY}/pi-06/1.jsonl"
    elsewhere.put_new(key, b"newer\n")
    restored = warehouse.restored(empty_database_url, elsewhere)

    assert (restored.objects, restored.there) == (2, 1)
    assert elsewhere.get(key, 100) == b"newer\n"


def test_an_object_of_any_form_of_bucket_comes_back_to_any(form: Form, tmp_path: Path) -> None:
    """By way of the folder, byte for byte."""
    bodies = {f"{DAY}/pi-05/{number}.jsonl": b"%d" % number * number for number in range(1, 12)}
    for key, body in bodies.items():
        form.bucket.put_new(key, body)
    listed = tmp_path / "objects.jsonl"
    first = copy_objects(form.bucket, tmp_path / "copies", listed, lambda _seen: None)
    second = copy_objects(form.bucket, tmp_path / "copies", listed, lambda _seen: None)

    assert objects(FolderBucket(tmp_path / "copies")) == bodies
    assert (first.count, first.copied, second.count, second.copied) == (11, 11, 11, 0)


def test_the_secret_is_kept_closed_and_comes_back_with_the_one_before_it(warehouse: Warehouse) -> None:
    """And the day since which the one before counts: or it would count for ever, or no longer."""
    with data_folder() as data:
        (data / "secrets").mkdir(parents=True)
        for name in ("jwt-secret", "jwt-secret-previous"):
            (data / "secrets" / name).write_text(f"{name} {SECRET}\n")
        os.utime(data / "secrets" / "jwt-secret-previous", (1_700_000_000, 1_700_000_000))
        with BackupFolder(warehouse.folder, writing=True) as held:
            source = Source(warehouse.url, None, data, CLEAN)
            back_up(source, held, program="1.0", now=NOW)
        new = data.with_name("new")
        with BackupFolder(warehouse.folder, writing=False) as held:
            restored = restore_directory(
                choose(held, None), new, elsewhere=None, environment=CLEAN, now=NOW, progress=lambda _done: None
            )
        kept = [warehouse.folder / "secrets", new / "secrets"]
        previous = [(folder / "jwt-secret-previous").stat() for folder in kept]
        secrets = [(folder / "jwt-secret").read_text().strip() for folder in kept]

    assert restored.has_secret
    assert secrets == [f"jwt-secret {SECRET}"] * 2
    assert [round(status.st_mtime) for status in previous] == [1_700_000_000] * 2
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in warehouse.folder.rglob("*") if path.parent.name == "secrets"
    } == {0o600}
    assert stat.S_IMODE((warehouse.folder / "secrets").stat().st_mode) == 0o700


def test_a_restore_that_was_broken_off_is_no_server_and_is_repeated(warehouse: Warehouse) -> None:
    """`up` would begin an empty warehouse there, with which every device were told that all is well."""
    warehouse.back_up()
    with data_folder() as data:
        (data / "postgres").mkdir(parents=True)
        (data / "postgres" / "PG_VERSION").write_text("18")
        (data / RESTORING).touch()
        refused = command("up", "--data", data, "--listen", "127.0.0.1:0")
        repeated = command("restore", warehouse.folder, "--data", data, "--json")
        is_marked = (data / RESTORING).exists()

    assert refused.status == 1
    assert "was broken off" in refused.stderr
    assert repeated.status == 0, repeated.stderr
    assert json.loads(repeated.stdout)["rows"]["silver"] == 4
    assert not is_marked


def test_roles_that_the_database_speaks_of_are_made_and_named(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket, tmp_path: Path
) -> None:
    """Of another cluster: what an analyst was given is there, and nobody can log in by it."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute('create role "back office" login')
        connection.execute('grant select on scout.gold_txn_daily to "back office"')
        with BackupFolder(warehouse.folder, writing=True) as held:
            back_up(Source(warehouse.url, None, tmp_path, CLEAN), held, program="1.0", now=NOW)
        connection.execute('drop owned by "back office"')
        connection.execute('drop role "back office"')
    restored = warehouse.restored(empty_database_url, elsewhere)
    role = "select rolcanlogin, has_table_privilege(oid, 'scout.gold_txn_daily', 'select') from pg_roles"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        found = connection.execute(f"{role} where rolname = 'back office'".encode()).fetchone()
        connection.execute('drop owned by "back office"')
        connection.execute('drop role "back office"')

    assert restored.roles == ["back office"]
    assert found == (False, True)


def _programs(folder: Path, **versions: str) -> str:
    """Make programs of these versions, each in a folder of its own; return a PATH of them."""
    for name, version in versions.items():
        (folder / name).mkdir(parents=True)
        program = folder / name / "pg_dump"
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return os.pathsep.join(str(folder / name) for name in versions)


def test_the_oldest_program_is_taken_that_is_not_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one can't read the server; and one without TLS is not used across a network, whatever its version."""
    monkeypatch.setattr("server.postgres_binaries.DEBIAN_FOLDER", tmp_path / "none")
    path = _programs(tmp_path, a="15.1", b="99.1", c="17.2")
    far = "postgresql://owner@db.example.com/postgres"

    assert dump.find_program("pg_dump", 16, far, {"PATH": path}) == tmp_path / "c" / "pg_dump"
    assert dump.find_program("pg_dump", 15, far, {"PATH": path}) == tmp_path / "a" / "pg_dump"
    with pytest.raises(Misconfigured, match="postgresql-client-16"):
        dump.find_program("pg_dump", 16, far, {"PATH": str(tmp_path / "a")})


def test_programs_that_are_newer_than_the_server_will_do(
    warehouse: Warehouse, empty_database_url: str, elsewhere: FolderBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server is Debian's PostgreSQL 15, those that come with us set what it doesn't know."""
    monkeypatch.setattr("server.postgres_binaries.DEBIAN_FOLDER", Path("/nowhere"))
    newest = CLEAN | {"PATH": "/nowhere"}
    with BackupFolder(warehouse.folder, writing=True) as held:
        made = back_up(Source(warehouse.url, warehouse.bucket, None, newest), held, program="1.0", now=NOW)
        restored = restore_pieces(
            choose(held, None), empty_database_url, elsewhere, environment=newest, now=NOW, progress=lambda _done: None
        )

    assert made.moment.postgres >= 18
    assert restored.rows["silver"] == 4
    assert contents(empty_database_url) == contents(warehouse.url)


@pytest.mark.parametrize("url", ["postgresql://a@127.0.0.1/x", "postgresql:///x", "host=/run/postgresql dbname=x"])
def test_on_this_machine_what_came_with_us_will_do(url: str) -> None:
    """Nothing more is to be installed beside `up`."""
    found = dump.find_program("pg_dump", 15, url, {"PATH": "/nowhere"})

    assert found.name == "pg_dump"


def test_without_a_secret_it_is_said(warehouse: Warehouse) -> None:
    """Nobody shall find out on the day of the restore."""
    without = warehouse.run("backup", warehouse.folder)
    with_one = warehouse.run("backup", warehouse.folder, SUPABASE_JWT_SECRET=SECRET)

    assert "no JWT secret is known here" in without.stderr
    assert "keep" in with_one.stdout
    assert SECRET not in with_one.stdout + with_one.stderr
    assert (warehouse.folder / "secrets" / "jwt-secret").read_text().strip() == SECRET
