"""Batches onto a stick: real spools, real folders, real processes."""

import errno
import gzip
import json
import os
import pty
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent_kit import BUILT_ON, NOW, environment, numbers_in, open_spool, sale, until, write_config
from fakes import FakeClock

from agent import config as configuration
from agent.errors import LocalFault
from agent.export import Exported, _sync_folders, export
from agent.spool import SealLimits, Spool
from wire.batch import BatchName, content_hash
from wire.manifest import CHECKSUMS, MANIFEST, from_line

URL = "http://127.0.0.1:9"
ONE_ROW = SealLimits(1, 1 << 20, 0.0)
REFUSED_BY_FAT = set('\\:*?"<>|') | {chr(code) for code in range(32)}


@pytest.fixture
def config(tmp_path: Path) -> configuration.Config:
    """Give a config for everything in one folder; each batch has two sales."""
    return configuration.load(write_config(tmp_path, URL, batch={"rows_max": 2}))


@pytest.fixture
def spool(config: configuration.Config, clock: FakeClock) -> Iterator[Spool]:
    """Give the config's spool, empty."""
    opened = open_spool(config.spool_file, clock)
    yield opened
    opened.close()


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """Where the stick would be mounted."""
    return tmp_path / "stick"


def to_stick(config: configuration.Config, stick: Path, clock: FakeClock, *, settled: bool = False) -> Exported:
    """Export once."""
    return export(config, stick, settled=settled, clock=clock, rng=random.Random(5))


def objects(stick: Path) -> dict[str, bytes]:
    """What lies under final names of objects: by key, uncompressed."""
    files = sorted(stick.glob("*/*/*.jsonl.gz"))
    return {str(file.relative_to(stick)): gzip.decompress(file.read_bytes()) for file in files}


def numbers(stick: Path) -> list[int]:
    """The numbers of all sales on the stick."""
    return sorted(number for jsonl in objects(stick).values() for number in numbers_in(jsonl))


def assert_verified(stick: Path) -> None:
    """What `sha256sum -c` says, and the manifest, of exactly the objects that are there."""
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS], cwd=stick, capture_output=True, check=True
    )
    entries = [from_line(line) for line in (stick / MANIFEST).read_bytes().splitlines()]
    held = objects(stick)
    assert held
    assert [entry.key for entry in entries] == sorted(held)
    assert checked.stdout.decode().splitlines() == [f"{name}: OK" for name in (MANIFEST, *sorted(held))]
    for entry in entries:
        assert entry.sha256 == content_hash(held[entry.key])
        assert entry.rows == len(held[entry.key].splitlines())
        assert entry.bytes == (stick / entry.key).stat().st_size


def states(spool: Spool) -> list[tuple[Any, ...]]:
    """Everything about the batches but whether they were exported."""
    query = "select number, key, state, resend, refusals, accepted_at, accepted_by, settled_at from batches"
    return sorted(tuple(row) for row in spool._connection.execute(query))


def in_every_state(spool: Spool) -> None:
    """Two sales each: settled, accepted, set aside, waiting, and not sealed."""
    for first in (1, 3, 5, 7):
        spool.append([sale(first), sale(first + 1)])
        spool.seal(NOW, BUILT_ON)
    settled, accepted, aside, _waiting = spool.kept(settled=True)
    spool.accept(settled, "bucket")
    spool.settle([settled], "2027-03-01T00:00:00.000Z")
    spool.accept(accepted, "bucket")
    assert spool.refuse(aside, "refused", refusals_max=1)
    spool.append([sale(9)])


def test_everything_the_server_has_not_settled_is_on_the_stick(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """Waiting, set aside, accepted, and what was not sealed yet, under the objects' own keys."""
    in_every_state(spool)
    done = to_stick(config, stick, clock)

    assert numbers(stick) == [3, 4, 5, 6, 7, 8, 9]
    assert (done.batches, done.rows, done.already_there, done.problems) == (4, 7, 0, ())
    assert list(objects(stick)) == sorted(batch.name.key for batch in spool.kept(settled=False))
    assert all(BatchName.parse(key).hash == content_hash(jsonl)[:16] for key, jsonl in objects(stick).items())
    assert_verified(stick)


def test_all_that_is_still_kept_goes_out_when_asked_for(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """For a server that lost its newest days."""
    in_every_state(spool)
    to_stick(config, stick, clock, settled=True)

    assert numbers(stick) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert_verified(stick)


def test_exporting_changes_nothing_but_that_receipts_are_awaited(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """Every batch keeps its state; those that never were accepted are awaited from now on."""
    in_every_state(spool)
    spool.seal(NOW, BUILT_ON)
    before = states(spool)
    assert [batch.number for batch in spool.awaited(10)] == [2]
    to_stick(config, stick, clock)

    assert states(spool) == before
    assert [batch.number for batch in spool.awaited(10)] == [2, 3, 4, 5]
    following = spool.next_waiting()
    assert following
    assert (following.number, following.exported) == (4, True)


def test_doing_it_again_writes_only_what_is_new(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """And mends what the stick forgot."""
    spool.append([sale(1), sale(2), sale(3)])
    to_stick(config, stick, clock)
    first, second = sorted(stick.glob("*/*/*.jsonl.gz"))
    first_inode = first.stat().st_ino
    second.write_bytes(second.read_bytes()[:-9])
    spool.append([sale(4)])
    done = to_stick(config, stick, clock)

    assert (done.batches, done.already_there) == (3, 1)
    assert first.stat().st_ino == first_inode
    assert numbers(stick) == [1, 2, 3, 4]
    assert_verified(stick)


def test_one_stick_serves_many_shops(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path, tmp_path: Path
) -> None:
    """Each adds to manifest and checksums, whatever earlier lines are worth by now."""
    spool.append([sale(1)])
    to_stick(config, stick, clock)
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    other = msgspec.structs.replace(
        configuration.load(write_config(elsewhere, URL)), device=configuration.Device(id="pi-06")
    )
    Spool(other.spool_file, "pi-06", clock=clock, rng=random.Random(2)).close()
    with (stick / MANIFEST).open("ab") as manifest:
        manifest.write(b'{"key":"../../etc/passwd"}\nrubbish\n')
    opened = Spool(other.spool_file, "pi-06", clock=clock, rng=random.Random(3))
    opened.append([sale(2)])
    opened.close()
    to_stick(other, stick, clock)

    assert {key.split("/")[1] for key in objects(stick)} == {"pi-05", "pi-06"}
    assert_verified(stick)


def test_a_batch_that_the_card_damaged_holds_up_no_other(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """It is named as a problem, and not counted as exported."""
    spool.append([sale(1), sale(2), sale(3), sale(4)])
    spool.seal(SealLimits(2, 1 << 20, 0.0), BUILT_ON)
    spool._connection.execute("update records set line = replace(line, '150', '950') where place % 10 = 1")
    done = to_stick(config, stick, clock)

    assert numbers(stick) == [3, 4]
    assert ["no longer matches its checksum" in problem for problem in done.problems] == [True]
    assert [batch.exported for batch in spool.kept(settled=False)] == [False, True]


def test_a_page_that_the_card_gives_back_as_rubbish_holds_up_no_other_batch(
    config: configuration.Config, clock: FakeClock, stick: Path
) -> None:
    """Export is what rescues the sales of a dying card."""
    with_batches(config, clock, 40)
    content = bytearray(config.spool_file.read_bytes())
    found = [content.find(b'"transaction_id": "t-%d"' % number) for number in (10, 20)]
    assert min(found) > 0
    for place in found:
        page = place // 4096 * 4096
        content[page : page + 4096] = b"\xff" * 4096
    config.spool_file.write_bytes(content)
    done = to_stick(config, stick, clock)

    assert 30 <= len(numbers(stick)) < 40
    assert len(done.problems) == 40 - len(numbers(stick))
    assert done.batches == len(numbers(stick))
    assert_verified(stick)


def test_every_name_is_one_that_a_fat_file_system_takes(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """No forbidden sign, no end in dot or blank, nothing told apart by capitals alone."""
    spool.append([sale(1), sale(2), sale(3)])
    to_stick(config, stick, clock)
    names = [part for file in stick.rglob("*") for part in file.relative_to(stick).parts]

    assert len(set(names)) > 4
    assert not any(set(name) & REFUSED_BY_FAT or name[-1] in ". " or len(name) > 255 for name in names)
    assert len({name.lower() for name in names}) == len(set(names))


def test_a_link_on_the_stick_leads_nowhere(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path, tmp_path: Path
) -> None:
    """Neither a folder's nor a file's: the export may run as root."""
    spool.append([sale(1)])
    to_stick(config, stick, clock)
    (file,) = stick.glob("*/*/*.jsonl.gz")
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "precious").write_bytes(b"precious")
    file.unlink()
    file.symlink_to(target / "precious")
    file.with_name(file.name + ".part").symlink_to(target / "precious")
    to_stick(config, stick, clock)
    assert numbers(stick) == [1]
    assert (target / "precious").read_bytes() == b"precious"

    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(target)
    with pytest.raises(LocalFault, match="a link stands where a folder should"):
        to_stick(config, stick, clock)
    assert [path.name for path in target.iterdir()] == ["precious"]


def test_what_cannot_be_used_is_refused_with_what_to_do(
    config: configuration.Config, spool: Spool, clock: FakeClock, tmp_path: Path
) -> None:
    """The agent's own folders, a stick that isn't there, a file, another export at work."""
    spool.append([sale(1)])
    (tmp_path / "sales").mkdir()
    (tmp_path / "file").touch()
    for place, words in {
        tmp_path / "sales" / "stick": "which the agent itself uses",
        tmp_path / "spool": "which the agent itself uses",
        tmp_path / "not" / "mounted": "Is it mounted",
        tmp_path / "file": "file: File exists",
    }.items():
        with pytest.raises(LocalFault, match=words):
            to_stick(config, place, clock)
    nobody = replace_directory(config, tmp_path / "nothing")
    with pytest.raises(LocalFault, match="no sale was ever taken here"):
        to_stick(nobody, tmp_path / "stick", clock)

    assert not (tmp_path / "nothing").exists()
    assert not [batch for batch in spool.kept(settled=True) if batch.exported]


def replace_directory(config: configuration.Config, directory: Path) -> configuration.Config:
    """The config with another spool."""
    return msgspec.structs.replace(config, spool=configuration.SpoolSection(directory=str(directory)))


def test_two_exports_onto_one_stick_do_not_meet(
    config: configuration.Config, spool: Spool, clock: FakeClock, stick: Path
) -> None:
    """The second is told so, and leaves the first alone."""
    spool.append([sale(1)])
    met: list[str] = []

    def another(_done: int, _of: int) -> None:
        with pytest.raises(LocalFault, match="another export writes there") as refused:
            to_stick(config, stick, clock)
        met.append(str(refused.value))

    export(config, stick, settled=False, clock=clock, rng=random.Random(1), progress=another)

    assert met
    assert_verified(stick)


def test_a_daemon_that_seals_at_the_same_moment_takes_turns(
    config: configuration.Config, spool: Spool, clock: FakeClock
) -> None:
    """What one of them sealed, the other finds sealed: no batch twice, no fault."""
    spool.append([sale(number) for number in range(1, 9)])
    daemons = open_spool(config.spool_file, clock, seed=9)
    asked: list[int] = []
    due_run = spool._due_run

    def seal_in_between(limits: SealLimits) -> Any:
        row = due_run(limits)
        if not asked:
            asked.append(daemons.seal(limits, BUILT_ON))
        return row

    spool._due_run = seal_in_between  # type: ignore[method-assign]
    spool.seal(SealLimits(2, 1 << 20, 0.0), BUILT_ON)
    daemons.close()

    assert asked == [4]
    assert [(batch.name.first_seq, batch.name.last_seq) for batch in spool.kept(settled=True)] == [
        (1, 2),
        (3, 4),
        (5, 6),
        (7, 8),
    ]


def test_a_file_system_that_cannot_sync_a_folder_is_good_enough() -> None:
    """FUSE and some FAT drivers can't, as /proc can't; then everything is synced."""
    descriptor = os.open("/proc/self", os.O_RDONLY)
    with pytest.raises(OSError) as refused:  # noqa: PT011  (its number is what is asserted)
        os.fsync(descriptor)
    os.close(descriptor)
    assert refused.value.errno == errno.EINVAL

    _sync_folders(Path("/proc/self"), set())


# The program


def command(config_file: Path, *arguments: str | Path) -> list[str]:
    """Write the command line as the installed program has it."""
    program = [sys.executable, "-c", "from agent.cli import main; main()"]
    return [*program, "export", *map(str, arguments), "--config", str(config_file)]


def with_batches(config: configuration.Config, clock: FakeClock, count: int) -> None:
    """Fill the spool with batches of one sale each."""
    opened = open_spool(config.spool_file, clock)
    opened.append([sale(number, note="x" * 3000) for number in range(count)])
    opened.seal(ONE_ROW, BUILT_ON)
    opened.close()


@contextmanager
def exporting(*arguments: Any, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run an export in the background."""
    process = subprocess.Popen(command(*arguments), env=environment(), **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_export_that_was_killed_leaves_nothing_half_and_goes_on(
    config: configuration.Config, clock: FakeClock, stick: Path, tmp_path: Path
) -> None:
    """At any moment: what has a final name is whole, and the next run completes it."""
    with_batches(config, clock, 600)
    reached = []
    for wanted in (1, 150, 300):
        with exporting(tmp_path / "config.toml", stick, stdout=subprocess.DEVNULL) as process:
            until(lambda: len(list(stick.glob("*/*/*.jsonl.gz"))) >= wanted, "it is under way")  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
        reached.append(len(numbers(stick)))
    assert reached[0] < 600
    done = subprocess.run(
        command(tmp_path / "config.toml", stick, "--json"), env=environment(), capture_output=True, check=True
    )

    said = json.loads(done.stdout)
    assert (said["batches"], said["problems"]) == (600, [])
    assert 300 <= said["already_there"] <= 600
    assert numbers(stick) == list(range(600))
    assert not list(stick.rglob("*.part"))
    assert_verified(stick)


def test_a_file_that_does_not_fit_is_an_error_that_says_so(
    config: configuration.Config, clock: FakeClock, stick: Path, tmp_path: Path
) -> None:
    """What fits is whole, what doesn't has no name, and with room the same command goes on."""
    opened = open_spool(config.spool_file, clock)
    opened.append([sale(1), sale(2, note=random.Random(1).randbytes(200_000).hex()), sale(3)])
    opened.seal(ONE_ROW, BUILT_ON)
    opened.close()

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = subprocess.run(
        command(tmp_path / "config.toml", stick),
        env=environment(),
        capture_output=True,
        check=False,
        preexec_fn=small_files,
    )
    assert full.returncode == 1
    assert b"The stick is full" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert numbers(stick) == [1]
    assert not list(stick.rglob("*.part"))

    again = subprocess.run(command(tmp_path / "config.toml", stick), env=environment(), capture_output=True, check=True)
    assert b"3 sales in 3 batches" in again.stdout
    assert numbers(stick) == [1, 2, 3]


@pytest.mark.root
def test_a_full_stick_and_a_write_protected_one_are_told_apart(
    config: configuration.Config, clock: FakeClock, stick: Path
) -> None:
    """A real file system of 96 KB; nothing is noted as exported before all of it is there."""
    with_batches(config, clock, 60)
    stick.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", stick], check=True)
    try:
        with pytest.raises(LocalFault, match="The stick is full"):
            to_stick(config, stick, clock)
        assert 0 < len(numbers(stick)) < 60
        assert not list(stick.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,ro", stick], check=True)
        with pytest.raises(LocalFault, match="can't be written"):
            to_stick(config, stick, clock)
        subprocess.run(["mount", "-o", "remount,rw,size=4m", stick], check=True)
        done = to_stick(config, stick, clock)
        assert not done.same_storage
        assert_verified(stick)
    finally:
        subprocess.run(["umount", stick], check=True)


def test_a_bar_is_shown_on_a_terminal_only(
    config: configuration.Config, clock: FakeClock, stick: Path, tmp_path: Path
) -> None:
    """A log file is no place for one."""
    with_batches(config, clock, 3)
    plain = subprocess.run(command(tmp_path / "config.toml", stick), env=environment(), capture_output=True, check=True)
    ours, its = pty.openpty()
    with exporting(tmp_path / "config.toml", stick, stdout=subprocess.DEVNULL, stderr=its) as process:
        process.wait()
    os.close(its)
    shown = os.read(ours, 1 << 16)
    os.close(ours)

    assert b"exporting" in shown
    assert b"100%" in shown
    assert b"exporting" not in plain.stderr + plain.stdout
    assert b"same storage" in plain.stderr


def test_the_batch_carries_whether_it_was_exported(spool: Spool) -> None:
    """So that the delivery loop asks before it sends; nothing else tells two batches apart by it."""
    spool.append([sale(1)])
    spool.seal(NOW, BUILT_ON)
    (batch,) = spool.kept(settled=False)
    spool.note_exported([batch])

    assert spool.kept(settled=False) == [replace(batch, exported=True)]
