"""Older devices' files: thousands of them, in folders and zips, into bronze once and under their own device."""

import json
import os
import signal
import stat
import subprocess
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from programs import CLEAN, PROGRAM, scout_server
from psycopg_pool import ConnectionPool

from server import tokens, tree
from server.buckets.folder import FolderBucket
from server.errors import ServerError
from server.etl import run_etl
from server.expanding import Unreadable
from server.importing import Imported, import_paths

DEVICE = "scoutpi-0002"


@pytest.fixture
def files(tmp_path: Path, connection: psycopg.Connection) -> Path:
    """The folder of a device that is known, in a backup."""
    tokens.add_device(connection, DEVICE)
    folder = tmp_path / "backup" / DEVICE
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def take(pool: ConnectionPool, bucket: FolderBucket) -> Callable[..., Imported]:
    """Import these paths."""

    def import_(*paths: Path, dry_run: bool = False, add_devices: bool = False) -> Imported:
        return import_paths(pool, bucket, paths, dry_run=dry_run, add_devices=add_devices)

    return import_


def write(path: Path, *sales: dict[str, object], at: datetime = datetime(2026, 1, 22, tzinfo=UTC)) -> Path:
    """Write one sale as an object, several as an array, as the older devices did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sales[0] if len(sales) == 1 else sales, indent=1))
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def packed(folder: Path, zip_path: Path) -> Path:
    """Pack a folder, its own name included."""
    with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return zip_path


def edge_rows(connection: psycopg.Connection) -> list[tuple[str, str, str | None]]:
    """Device, sale and time of the rows in the warehouse's own bronze table."""
    query = "select device_id, payload ->> 'n', captured_at from scout.bronze_edge_raw order by payload ->> 'n'"
    return [(device, n, at.astimezone(UTC).isoformat() if at else None) for device, n, at in connection.execute(query)]


def reasons(imported: Imported) -> dict[str, tuple[str, str]]:
    """Kind and reason of each problem, by the file's name."""
    return {Path(problem.path).name: (problem.kind, problem.reason) for problem in imported.problems}


def test_files_become_rows_of_their_device_with_their_own_times(
    files: Path, take: Callable[..., Imported], pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """From `timestamp`, `captured_at` or `ts`, without an offset the shop's; else when the file was written."""
    write(files / "a.json", {"n": "1", "timestamp": "2026-01-20T10:00:00Z", "captured_at": "2026-01-20T10:00:05Z"})
    write(files / "2026" / "01" / "b.json", {"n": "2", "captured_at": "2026-01-20T11:00:00+08:00"})
    write(files / "c.json", {"n": "3", "ts": "2026-01-20T12:00:00"}, {"n": "4", "timestamp": "yesterday"})
    imported = take(files.parent)
    run_etl(pool)

    assert (imported.objects, imported.rows, imported.accepted, imported.problems) == (3, 4, 4, ())
    assert imported.devices == {DEVICE: 3}
    assert edge_rows(connection) == [
        (DEVICE, "1", "2026-01-20T10:00:00+00:00"),
        (DEVICE, "2", "2026-01-20T03:00:00+00:00"),
        (DEVICE, "3", "2026-01-20T04:00:00+00:00"),
        (DEVICE, "4", "2026-01-22T00:00:00+00:00"),
    ]


def test_what_was_imported_flows_on_to_silver(
    files: Path, take: Callable[..., Imported], pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A file whose sales say no time was sold, as far as anybody knows, when it was written."""
    sold = {"store_id": "102", "peso_value": 150.5}
    write(files / "a.json", {"transaction_id": "t-1", "captured_at": "2026-01-20T10:00:00Z", **sold})
    write(files / "b.json", {"transaction_id": "t-2", **sold})
    take(files)
    run_etl(pool)
    query = "select transaction_id, sold_at from scout.silver_transactions order by 1"
    silver = [(name, at.astimezone(UTC)) for name, at in connection.execute(query)]

    assert silver == [
        ("t-1", datetime(2026, 1, 20, 10, tzinfo=UTC)),
        ("t-2", datetime(2026, 1, 22, tzinfo=UTC)),
    ]


def test_the_same_file_from_a_zip_another_folder_or_again_is_the_same(
    files: Path, take: Callable[..., Imported], tmp_path: Path, connection: psycopg.Connection
) -> None:
    """Backups overlap; sales without an id must not be doubled by that."""
    sale = {"amount": 20, "timestamp": "2026-01-20T10:00:00Z"}
    write(files / "a.json", sale)
    write(tmp_path / "older backup" / "SCOUTPI-0002" / "2026" / "a.json", sale, at=datetime(2026, 2, 2, tzinfo=UTC))
    archive = packed(files, tmp_path / "backup.ZIP")
    first = take(files.parent, tmp_path / "older backup", archive)
    again = take(archive, files / "a.json")

    assert (first.objects, first.rows, first.stored, first.accepted) == (1, 1, 1, 1)
    assert first.devices == {DEVICE: 1}
    assert (again.objects, again.stored, again.loaded_before, again.accepted) == (1, 0, 1, 0)
    assert connection.execute("select count(*) from scout_bronze.transactions_raw").fetchone() == (1,)


def test_equal_sales_in_two_files_are_two_sales(files: Path, take: Callable[..., Imported]) -> None:
    """Two customers, one peso each, within one second: the device wrote a file for each."""
    for name in ("a.json", "b.json"):
        write(files / name, {"amount": 1, "timestamp": "2026-01-20T10:00:00Z"})
    imported = take(files)

    assert (imported.objects, imported.accepted) == (2, 2)


def test_a_bad_transaction_is_held_and_a_bad_file_named(
    files: Path, take: Callable[..., Imported], connection: psycopg.Connection
) -> None:
    """Their neighbours are taken."""
    (files / "lines.jsonl").write_bytes(b'{"n":"1"}\nrubbish\n{"n":"2"}\n')
    (files / "cut.json").write_bytes(b'[{"n":"3"},{"n"')
    (files / "cut.json.gz").write_bytes(b"\x1f\x8b\x08rubbish")
    write(files / "good.json", {"n": "4"})
    imported = take(files)
    held = connection.execute("select count(*) from scout_bronze.quarantine").fetchone()

    assert (imported.accepted, imported.rejected) == (3, 2)
    assert held == (2,)
    assert reasons(imported)["cut.json.gz"][0] == "damaged"


def test_a_device_that_nobody_knows_is_refused_until_it_is_let_in(
    tmp_path: Path, take: Callable[..., Imported], connection: psycopg.Connection
) -> None:
    """A dry run says for whom files would be taken; `add_devices` then lets those in, without a token."""
    write(tmp_path / "all" / "scoutpi-0007" / "json" / "a.json", {"n": "1"})
    write(tmp_path / "all" / "stray.json", {"n": "2"})
    refused = take(tmp_path / "all")
    dry = take(tmp_path / "all", dry_run=True, add_devices=True)
    unchanged = connection.execute("select count(*) from scout_edge.devices").fetchone()
    added = take(tmp_path / "all", add_devices=True)

    assert "device scoutpi-0007 is unknown: let it in with --add-devices" in reasons(refused)["a.json"][1]
    assert (dry.devices, dry.devices_added, dry.accepted) == ({"scoutpi-0007": 1}, ("scoutpi-0007",), 0)
    assert unchanged == (0,)
    assert (added.accepted, added.devices_added) == (1, ("scoutpi-0007",))
    assert reasons(added).keys() == {"stray.json"}  # wherever the backup itself may lie
    assert connection.execute("select device_id from scout_edge.devices").fetchall() == [("scoutpi-0007",)]
    assert connection.execute("select count(*) from scout_edge.tokens").fetchone() == (0,)


def test_a_zip_may_be_called_like_the_device_and_a_part_of_its_folder_named(
    files: Path, take: Callable[..., Imported], tmp_path: Path
) -> None:
    """Where the device is known, folders above the named one count as well."""
    write(files / "2026" / "a.json", {"n": "1"})
    part = take(files / "2026")
    with zipfile.ZipFile(tmp_path / "ScoutPi-0009.zip", "w") as archive:
        archive.writestr("b.json", '{"n":"2"}')
    zipped = take(tmp_path / "ScoutPi-0009.zip", add_devices=True)

    assert (part.accepted, part.devices) == (1, {DEVICE: 1})
    assert (zipped.accepted, zipped.devices) == (1, {"scoutpi-0009": 1})


def test_names_of_any_kind_are_taken_and_others_left_alone(
    files: Path, take: Callable[..., Imported], bucket: FolderBucket
) -> None:
    """What a key can't hold is replaced; what is no JSON is not touched, unless it was named."""
    for name in ("résumé 1.json", "-x.JSON", "b\udcff.json", "new\nline.json", "x" * 200 + ".json", "_.json"):
        write(files / name, {"n": name.encode(errors="replace").decode()})
    (files / "readme.txt").write_text("hello")
    imported = take(files)
    named = take(files / "readme.txt")

    assert (imported.objects, imported.accepted, imported.left_alone, imported.problems) == (6, 6, 1, ())
    assert len(list(bucket.list(""))) == 6
    assert reasons(named)["readme.txt"][0] == "refused"


def test_a_hostile_zip_harms_nothing_and_keeps_no_good_file_back(
    files: Path, take: Callable[..., Imported], bucket: FolderBucket
) -> None:
    """Names that lead out, links, encryption, damage, a bomb, an unknown packing: each is refused by name."""
    tmp_path = files.parent
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{DEVICE}/good.json", '{"n":"1"}')
        archive.writestr(f"../../{DEVICE}/out.json", '{"n":"2"}')
        archive.writestr(f"/{DEVICE}/rooted.json", '{"n":"3"}')
        archive.writestr(f"old\\{DEVICE}\\slashes.json", '{"n":"4"}')
        archive.writestr(f"__MACOSX/{DEVICE}/._good.json", "rubbish")
        link = zipfile.ZipInfo(f"{DEVICE}/link.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        with archive.open(f"{DEVICE}/bomb.json", "w") as bomb:
            for _ in range(300):
                bomb.write(b" " * 1024 * 1024)
        archive.writestr(f"{DEVICE}/damaged.json", json.dumps({"n": "5", "padding": os.urandom(200).hex()}))
        archive.writestr(f"{DEVICE}/locked.json", "locked")
        archive.writestr(f"{DEVICE}/packed.json", "packed")
    _spoil(path, "damaged.json", content=True)
    _spoil(path, "locked.json", flags=1)
    _spoil(path, "packed.json", method=97)
    (tmp_path / "no.zip").write_bytes(b"PK rubbish")
    imported = take(path, tmp_path / "no.zip")

    assert imported.accepted == 4
    assert {name: kind for name, (kind, _) in reasons(imported).items()} == {
        "link.json": "refused",
        "bomb.json": "damaged",
        "damaged.json": "damaged",
        "locked.json": "refused",
        "packed.json": "refused",
        "no.zip": "damaged",
    }
    assert all(f"/{DEVICE}/" in info.key for info in bucket.list(""))
    assert not list(tmp_path.parent.glob(f"**/{DEVICE}/out.json"))


def _spoil(path: Path, name: str, *, content: bool = False, flags: int = 0, method: int = 0) -> None:
    """Change what a zip says of a member, in both places, or a byte of what it holds."""
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith(name))
    name_at = len(member.filename.encode())
    if content:
        whole[member.header_offset + 30 + name_at + 60] ^= 0xFF
    central = whole.rindex(member.filename.encode()) - 46
    for at, offset in ((member.header_offset, 6), (central, 8)):
        whole[at + offset] |= flags
        if method:
            whole[at + offset + 2] = method
    path.write_bytes(whole)


def test_an_export_in_a_zip_is_taken_as_from_the_stick(files: Path, take: Callable[..., Imported]) -> None:
    """DAY/DEVICE/FILE, wherever in it, and its checksums."""
    tmp_path = files.parent
    folder = tmp_path / "stick" / "2026-01-20" / DEVICE
    write(folder / "data.json", {"n": "1"})
    write(folder / "other.json", {"n": "2"})
    (tmp_path / "stick" / "SHA256SUMS").write_text(f"{'0' * 64}  2026-01-20/{DEVICE}/other.json\n")
    imported = take(packed(tmp_path / "stick", tmp_path / "stick.zip"))

    assert (imported.objects, imported.accepted) == (1, 1)
    assert reasons(imported) == {"other.json": ("damaged", "its bytes are not what SHA256SUMS says")}


def test_an_import_that_is_killed_goes_on_where_it_was(
    files: Path, database_url: str, bucket: FolderBucket, connection: psycopg.Connection
) -> None:
    """Killed with SIGKILL in the middle of a thousand files; every sale is there once in the end."""
    for number in range(1000):
        write(files / f"{number}.json", {"n": f"{number}"})
    Path(bucket.folder).mkdir(exist_ok=True)
    arguments = ("import", str(files), "--database-url", database_url, "--bucket", Path(bucket.folder).as_uri())
    killed = subprocess.Popen([*PROGRAM, *arguments], env=CLEAN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    query = "select count(*) from scout_bronze.transactions_raw"
    while connection.execute(query).fetchone() == (0,):
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (before,) = connection.execute(query).fetchone() or (0,)
    finished = scout_server(*arguments, "--json")
    told = json.loads(finished.stdout)

    assert 0 < before < 1000
    assert finished.returncode == 0
    assert (told["objects"], told["loaded_before"] + told["loaded"]) == (1000, 1000)
    assert told["loaded"] > 0
    assert connection.execute(query).fetchone() == (1000,)


def test_what_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    """A path that is not there ends it; a file that vanishes meanwhile is a problem of its own."""
    path = write(tmp_path / DEVICE / "a.json", {"n": "1"})
    with tree.opened([tmp_path]) as found:
        path.unlink()
        with pytest.raises(FileNotFoundError):
            found.files[0].content()
    with pytest.raises(ServerError, match="Is the stick mounted"), tree.opened([path]):
        pass
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.json", "x")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"x", b"y", 1))
    with tree.opened([tmp_path / "a.zip"]) as found, pytest.raises(Unreadable):
        found.files[0].content()
