"""The folder source where the folder is not what it should be: linked, foreign, full, read-only, unmounted."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_kit import environment, sale, until
from disks import tmpfs
from fakes import FakeClock
from structlog.testing import capture_logs
from test_folder import FILE_BYTES_MAX, SETTLE_S, Interrupting, Killed, a_source, drain, files_in, rejected, stored

from agent.errors import LocalFault
from agent.intake import TakenFile
from agent.sources import rejected as rejecting
from agent.sources import watch
from agent.sources.folder import GROUP_FILES, NOTES_KEPT, RETRY_S, FolderSource
from agent.spool import Spool


@pytest.fixture
def source(folder: Path, spool: Spool, clock: FakeClock) -> Iterator[FolderSource]:
    """Give a source whose notifications nobody hears."""
    silent = a_source(folder, spool, clock)
    yield silent
    silent.close()


def nothing() -> None:
    """Happen not at all."""


@pytest.mark.parametrize("name", ["processing", "rejected"])
def test_a_link_in_place_of_the_sources_own_folder_is_refused_plainly(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path, *, name: str
) -> None:
    """Sales must not leave the folder; once the link is removed, everything goes on."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "0-theirs.json").write_bytes(sale(9))
    (folder / name).symlink_to(outside)
    (folder / "sale.jsonl").write_bytes(sale(1) + b"\noops")
    for act in (source.start, source.step):
        with pytest.raises(LocalFault, match=rf"{name} is a symbolic link\. Remove the link"):
            act()
    clock.pass_s(SETTLE_S)
    with pytest.raises(LocalFault):
        source.step()
    assert [path.name for path in outside.iterdir()] == ["0-theirs.json"]
    (folder / name).unlink()
    drain(source, clock)

    assert stored(spool) == [1]
    assert list(rejected(folder)) == ["sale.jsonl"]


def test_the_folder_itself_may_be_a_link(spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path) -> None:
    """And is listened to all the same, also when it comes to lead elsewhere."""
    link, woken = tmp_path / "link", threading.Event()
    link.symlink_to(folder)
    source = a_source(link, spool, clock, wake=woken.set)
    source.start()
    for number, place in enumerate((folder, tmp_path / "elsewhere")):
        place.mkdir(exist_ok=True)
        link.unlink()
        link.symlink_to(place)
        source.step()
        woken.clear()
        (place / "sale.json").write_bytes(sale(number))
        until(lambda: woken.is_set() and source.step() == 0.0, "it is taken without time passing")
    source.close()

    assert stored(spool) == [0, 1]


def test_a_folder_that_is_made_anew_is_listened_to(spool: Spool, folder: Path, clock: FakeClock) -> None:
    """From the next look on: a till that empties its folder with everything in it costs no delay later."""
    woken = threading.Event()
    source = a_source(folder, spool, clock, wake=woken.set)
    source.start()
    shutil.rmtree(folder)
    folder.mkdir()
    numbers = iter(range(1000))

    def is_taken_at_once() -> bool:
        number = next(numbers)
        (folder / f"{number}.json").write_bytes(sale(number))
        woken.wait(0.05)
        return source.step() == 0.0

    until(is_taken_at_once, "one is taken without time passing")
    source.close()

    assert stored(spool) != []


def test_without_notifications_sales_are_taken_all_the_same(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives only so many."""

    def failing(_observer: object) -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(watch.InotifyObserver, "start", failing)
    with capture_logs() as logs:
        source.start()
    assert [log["event"] for log in logs] == ["folder_not_watched"]
    (folder / "sale.json").write_bytes(sale(1))
    drain(source, clock)

    assert stored(spool) == [1]


def test_thousands_of_files_share_few_commits(spool: Spool, folder: Path, clock: FakeClock) -> None:
    """A sync for each would wear the card and take minutes. Names are any bytes; none is left behind."""
    count, commits = 2000, 0

    def counting() -> None:
        nonlocal commits
        commits += 1

    source = a_source(folder, Interrupting(spool, counting, nothing), clock)
    for number in range(count):
        name = b"%s-%d.json" % (bytes([1 + number % 45, 128 + number % 128]), number)
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(sale(number))
    drain(source, clock)

    assert sorted(stored(spool)) == list(range(count))
    assert commits == count // GROUP_FILES
    assert files_in(folder) == files_in(folder / "processing") == []
    assert spool.taken_files() == []


def test_no_room_for_what_is_refused_keeps_that_file_waiting_and_no_other(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking the others makes room; then it is taken too, with all that was refused."""

    def failing(_path: bytes, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "1.jsonl").write_bytes(sale(1) + b"\noops")
    (folder / "2.json").write_bytes(sale(2))
    (folder / "3.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(rejecting, "write_safely", failing)
        drain(source, clock)
    assert stored(spool) == [2]
    assert [log["error"] for log in logs if log["event"] == "file_not_taken"] == ["No space left on device"] * 2
    assert len(files_in(folder / "processing")) == 2
    clock.pass_s(RETRY_S)
    drain(source, clock)

    assert stored(spool) == [2, 1]
    assert set(rejected(folder)) == {"1.jsonl", "3.json"}
    assert files_in(folder / "processing") == []


def test_a_file_half_taken_when_its_folder_was_unmounted_is_not_taken_twice(
    spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """The agent may be killed before it removes a file, and be started while the folder looks empty."""

    def die() -> None:
        raise Killed

    (folder / "sale.json").write_bytes(sale(1))
    with pytest.raises(Killed):
        drain(a_source(folder, Interrupting(spool, nothing, die), clock), clock)
    folder.rename(tmp_path / "unmounted")
    for is_mounted in (False, True):
        if is_mounted:
            shutil.rmtree(folder)
            (tmp_path / "unmounted").rename(folder)
        source = a_source(folder, spool, clock)
        source.start()
        drain(source, clock)
        source.close()

    assert stored(spool) == [1]
    assert files_in(folder / "processing") == []


def test_notes_of_files_that_are_gone_stay_few(spool: Spool, folder: Path, clock: FakeClock) -> None:
    """However often the agent is killed between removing a file and dropping its note."""
    spool.append([], [TakenFile(b"%d-sale.json" % number, 7) for number in range(NOTES_KEPT)])
    for expected in (NOTES_KEPT, 0):
        source = a_source(folder, spool, clock)
        source.start()
        source.close()
        assert len(spool.taken_files()) == expected
        spool.append([], [TakenFile(b"one-more", 7)])


@pytest.mark.root
def test_the_folder_may_lie_on_another_file_system_than_the_spool(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """It is renamed within the folder only; and sales wait there while it isn't mounted."""
    (folder / "before.json").write_bytes(sale(1))
    source.start()
    with tmpfs(folder):
        assert folder.stat().st_dev != folder.parent.stat().st_dev
        (folder / "1.jsonl").write_bytes(sale(2) + b"\noops")
        (folder / "2.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
        drain(source, clock)
        assert stored(spool) == [2]
        assert set(rejected(folder)) == {"1.jsonl", "2.json"}
        (folder / "3.json").write_bytes(sale(3))
        drain(source, clock)
    drain(source, clock)

    assert stored(spool) == [2, 3, 1]


@pytest.mark.root
def test_a_full_folder_loses_nothing_and_takes_what_needs_no_room(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """What is refused waits until there is room; the sales beside it don't."""
    with tmpfs(folder, size="2m"):
        source.step()
        bad = b"x" * 600_000
        (folder / "1.jsonl").write_bytes(sale(1) + b"\n" + bad)
        for number in (2, 3):
            (folder / f"{number}.json").write_bytes(sale(number))
        filler = folder / "filler.tmp"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"x" * 3_000_000)
        with capture_logs() as logs:
            drain(source, clock)
        assert sorted(stored(spool)) == [2, 3]
        assert "file_not_taken" in [log["event"] for log in logs]
        filler.unlink()
        clock.pass_s(RETRY_S)
        drain(source, clock)

        assert sorted(stored(spool)) == [1, 2, 3]
        assert rejected(folder)["1.jsonl"][0] == bad


@pytest.mark.root
def test_a_read_only_file_system_is_said_and_left_when_it_is_mended(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """At the start as later; nothing is taken that couldn't be removed, for it would be taken again."""
    with tmpfs(folder):
        (folder / "sale.json").write_bytes(sale(1))
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(LocalFault, match=r"sales: Read-only file system\. Check that the folder under \[folder\]"):
            source.start()
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        source.start()
        source.step()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        clock.pass_s(SETTLE_S)
        with pytest.raises(LocalFault, match="Read-only file system"):
            source.step()
        assert stored(spool) == []
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        drain(source, clock)

    assert stored(spool) == [1]


WITHOUT_RIGHT = """
import os, sys
from pathlib import Path
import sqlite_utils
from agent_kit import open_spool
from agent.errors import LocalFault
from fakes import FakeClock
from test_folder import SETTLE_S, a_source, drain, stored
os.setgroups([]); os.setgid(65534); os.setuid(65534)
clock, root = FakeClock(), Path(sys.argv[1])
spool = open_spool(root / "spool" / "spool.db", clock)
source = a_source(root / "sales", spool, clock)
try:
    source.start()
    drain(source, clock)
except LocalFault as fault:
    print(fault, flush=True)
print(stored(spool), flush=True)
source.close()
"""


@pytest.mark.root
@pytest.mark.parametrize("has_own_folders", [False, True])
def test_a_folder_without_the_right_to_move_is_said_plainly(
    request: pytest.FixtureRequest, *, has_own_folders: bool
) -> None:
    """Also where its own folders are there from before; what was moved by then is taken."""
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(root))
    root.chmod(0o755)
    for name in ("sales", "spool"):
        (root / name).mkdir()
    (root / "spool").chmod(0o777)
    (root / "sales" / "1.json").write_bytes(sale(1))
    if has_own_folders:
        for name in ("processing", "rejected"):
            (root / "sales" / name).mkdir()
            (root / "sales" / name).chmod(0o777)
        (root / "sales" / "processing" / "0-2.json").write_bytes(sale(2))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHT, str(root)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    fault, taken = done.stdout.splitlines()[-2:]

    assert done.returncode == 0, done.stderr
    assert fault.startswith(f"{root}/sales: Permission denied. Check that the folder under [folder] path is there and")
    assert taken == ("[2]" if has_own_folders else "[]")
    assert files_in(root / "sales") == ["1.json"]
