"""The folder source, on real files, with the real spool behind it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from agent_kit import BUILT_ON, NOW, environment, numbers_in, open_spool, sale, until
from fakes import FakeClock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.errors import LocalFault
from agent.intake import FolderStore, Note
from agent.sources.folder import RESCAN_S, RETRY_S, FolderSource
from agent.spool import Spool

SETTLE_S = 2.0
MARKER = "Maria Clara"
FILE_BYTES_MAX = 1 << 20


def a_source(
    folder: Path, store: FolderStore, clock: FakeClock, *, seed: int = 1, wake: Callable[[], None] = lambda: None
) -> FolderSource:
    """Make a source as the daemon does."""
    return FolderSource(
        folder,
        store,
        settle_s=SETTLE_S,
        file_bytes_max=FILE_BYTES_MAX,
        wake=wake,
        clock=clock,
        rng=random.Random(seed),
    )


@pytest.fixture
def source(folder: Path, spool: Spool, clock: FakeClock) -> Iterator[FolderSource]:
    """Give a source whose notifications nobody hears: each test says what the loop sees."""
    silent = a_source(folder, spool, clock)
    for name in ("processing", "rejected"):
        (folder / name).mkdir()
    yield silent
    silent.close()


def drain(source: FolderSource, clock: FakeClock) -> None:
    """Let the loop run until everything there has settled and been taken."""
    while source.step() == 0.0:
        pass
    clock.pass_s(SETTLE_S)
    while source.step() == 0.0:
        pass


def stored(spool: Spool) -> list[int]:
    """The numbers of the sales taken so far, in their order."""
    spool.seal(NOW, BUILT_ON)
    return [n for batch in _batches(spool) for n in numbers_in(spool.body(batch))]


def _batches(spool: Spool) -> list[Any]:
    while batch := spool.next_waiting():
        spool.accept(batch, "test")
    return spool.awaited(100_000)


def files_in(folder: Path) -> list[str]:
    """Names of the files right in a folder."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def open_files() -> int:
    """How many files this process holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def rejected(folder: Path) -> dict[str, tuple[bytes, str]]:
    """What lies in rejected/: the bytes and the reasons, by the file's own name."""
    files = [path for path in (folder / "rejected").iterdir() if not path.name.endswith(".reason.txt")]
    reasons = {path: path.with_name(path.name + ".reason.txt") for path in files}
    return {path.name.partition("-")[2]: (path.read_bytes(), reasons[path].read_text()) for path in files}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("one.json", sale(1), [1]),
        ("pretty.json", json.dumps(json.loads(sale(1)), indent=2).encode(), [1]),
        ("array.json", b"[" + sale(1) + b",\n" + sale(2) + b"]\n", [1, 2]),
        ("lines.jsonl", sale(1) + b"\n" + sale(2) + b"\n", [1, 2]),
        ("lines.txt", sale(1) + b"\n" + sale(2), [1, 2]),
        ("crlf.jsonl", b"\xef\xbb\xbf" + sale(1) + b"\r\n\r\n" + sale(2) + b"\r\n", [1, 2]),
        ("no-extension", sale(1), [1]),
        ("empty.json", b"", []),
        ("blank.json", b"\xef\xbb\xbf \r\n", []),
    ],
)
def test_a_settled_file_is_taken_and_removed(
    source: FolderSource,
    spool: Spool,
    folder: Path,
    clock: FakeClock,
    *,
    name: str,
    content: bytes,
    expected: list[int],
) -> None:
    """Whatever of the three forms it has; nothing of it stays behind."""
    (folder / name).write_bytes(content)
    assert source.step() == pytest.approx(SETTLE_S)
    assert (folder / name).exists()
    drain(source, clock)

    assert stored(spool) == expected
    assert files_in(folder) == files_in(folder / "processing") == files_in(folder / "rejected") == []
    assert spool.taken_files() == []


@pytest.mark.parametrize("name", [".hidden", ".sale.json", "sale.json.tmp", "sale.part", "a.tmp"])
def test_a_name_that_waits_is_left_until_it_is_renamed(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, name: str
) -> None:
    """However long it lies there."""
    (folder / name).write_bytes(sale(1))
    for _ in range(3):
        clock.pass_s(1000.0)
        source.step()
    assert files_in(folder) == [name]
    (folder / name).rename(folder / "sale.json")
    drain(source, clock)

    assert stored(spool) == [1]


def test_a_file_that_keeps_changing_is_left_until_it_rests(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """`settle_s` counts from the last change."""
    path = folder / "sale.jsonl"
    for number in range(4):
        with path.open("ab") as file:
            file.write(sale(number) + b"\n")
        source.step()
        clock.pass_s(SETTLE_S * 0.9)
        source.step()
        assert path.exists()
    drain(source, clock)

    assert stored(spool) == [0, 1, 2, 3]


def test_links_and_folders_are_left_alone(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """Somebody's file outside must not be moved or read, and nothing that isn't a file may stop intake."""
    outside = tmp_path / "outside.json"
    outside.write_bytes(sale(1))
    (folder / "link.json").symlink_to(outside)
    (folder / "broken.json").symlink_to(tmp_path / "nowhere")
    (folder / "sub.json").mkdir()
    (folder / "sub.json" / "sale.json").write_bytes(sale(2))
    os.mkfifo(folder / "pipe.json")
    (folder / "processing" / "0-folder").mkdir()
    os.mkfifo(folder / "processing" / "0-pipe.json")
    (folder / "processing" / "0-link.json").symlink_to(outside)
    (folder / "sale.json").write_bytes(sale(3))
    drain(source, clock)

    assert stored(spool) == [3]
    assert outside.read_bytes() == sale(1)
    assert (folder / "sub.json" / "sale.json").exists()


def test_names_may_be_any_bytes_and_as_long_as_they_get(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """A till in another alphabet or with a bug must not stop intake; also where the file is refused."""
    names = [
        b"\xff\xfe\x01.json",
        "ñandú 🥥.json".encode(),
        b" ",
        b"a\nb.json",
        b"x" * 250 + b".json",
        b"-",
        b"y" * 255,
    ]
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(sale(number))
    for name in (b"x" * 249 + b".jsonl", b"\xff.jsonl"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"oops")
    drain(source, clock)

    assert sorted(stored(spool)) == list(range(len(names)))
    assert files_in(folder) == files_in(folder / "processing") == []
    assert len(files_in(folder / "rejected")) == 4


def test_a_thousand_files_at_once_are_taken_in_the_order_of_writing(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """Of two versions of one sale the later one must get the higher id, whatever their names say."""
    order = list(range(1000))
    random.Random(3).shuffle(order)
    for place, number in enumerate(order):
        path = folder / f"{random.Random(number).getrandbits(32):08x}.json"
        path.write_bytes(sale(number))
        os.utime(path, ns=(0, 10**18 + place))
    drain(source, clock)

    assert stored(spool) == order
    assert files_in(folder / "processing") == []


def test_a_bad_line_is_set_beside_and_the_others_are_taken(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """File, line and reason are named; the refused bytes are there exactly; the customer is nowhere else."""
    bad = [b'{"customer":"%s"' % MARKER.encode(), b'{"a":NaN,"c":"%s"}' % MARKER.encode(), b'{"a":"\xff"}', b"17"]
    lines = [sale(1), bad[0], sale(2), bad[1], bad[2], b"", bad[3], sale(3)]
    (folder / "day.jsonl").write_bytes(b"\r\n".join(lines))
    with capture_logs() as logs:
        drain(source, clock)
    content, reasons = rejected(folder)["day.jsonl"]

    assert stored(spool) == [1, 2, 3]
    assert content.split(b"\n") == bad
    assert [line.partition(": ")[0] for line in reasons.splitlines()] == [f"day.jsonl, line {n}" for n in (2, 4, 5, 7)]
    assert MARKER not in reasons
    assert logs
    assert MARKER not in repr(logs)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'[{"a":1},\n{"a":2}\n', 3),
        (b'{\n"a": 1,\n"b": oops "Maria Clara"\n}', 3),
        (b'[{"a":"Maria Clara"},\r\n\r\n{"a":NaN}]', 3),
    ],
)
def test_a_file_that_cannot_be_divided_is_rejected_whole_and_byte_for_byte(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, *, content: bytes, line: int
) -> None:
    """It can be mended and handed in again as it was."""
    (folder / "broken.json").write_bytes(content)
    (folder / "good.json").write_bytes(sale(1))
    drain(source, clock)
    kept, reasons = rejected(folder)["broken.json"]

    assert kept == content
    assert reasons.startswith(f"broken.json, line {line}: ")
    assert MARKER not in reasons
    assert stored(spool) == [1]


def test_limits_of_a_line_hold_to_the_byte_and_to_the_level(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """1 MiB and 128 levels are taken; one more of either is refused, alone."""
    mebibyte = 1 << 20
    filled = sale(1)[:-1] + b',"f":"' + b"x" * (mebibyte - len(sale(1)) - 7) + b'"}'
    assert len(filled) == mebibyte
    deep = sale(2)[:-1] + b',"d":' + b"[" * 127 + b"]" * 127 + b"}"
    (folder / "a.jsonl").write_bytes(filled)
    (folder / "b.jsonl").write_bytes(deep + b"\n" + deep.replace(b"[]", b"[[]]"))
    drain(source, clock)

    assert stored(spool) == [1, 2]
    assert "line 2: nested deeper than 128 levels" in rejected(folder)["b.jsonl"][1]


def test_a_file_too_large_for_memory_is_rejected_without_a_copy(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """It is moved, not linked: an ordinary user may not link a file that belongs to the till's user."""
    path = folder / "huge.jsonl"
    path.write_bytes(sale(1) + b"\n" * FILE_BYTES_MAX)
    inode = path.stat().st_ino
    (folder / "good.json").write_bytes(sale(2))
    drain(source, clock)
    (kept,) = (folder / "rejected").glob("*huge.jsonl")

    assert kept.stat().st_ino == inode
    assert kept.stat().st_nlink == 1
    assert "huge.jsonl, line 1: larger than folder.file_bytes_max = 1048576" in rejected(folder)["huge.jsonl"][1]
    assert stored(spool) == [2]
    assert files_in(folder / "processing") == []
    assert spool.taken_files() == []


class Interrupting:
    """The real spool, with something that happens around each append."""

    def __init__(self, spool: Spool, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._spool, self._before, self._after = spool, before, after

    def append(self, payloads: Sequence[bytes], notes: Sequence[Note] = ()) -> int:
        """Append between the two."""
        self._before()
        rows = self._spool.append(payloads, notes)
        self._after()
        return rows

    def bytes_taken(self, name: bytes) -> int | None:
        """As the spool."""
        return self._spool.bytes_taken(name)

    def taken_files(self) -> list[bytes]:
        """As the spool."""
        return self._spool.taken_files()

    def release_files(self, names: Sequence[bytes]) -> None:
        """As the spool."""
        self._spool.release_files(names)


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
@pytest.mark.parametrize("appended", [b"\n" + sale(2) + b"\n", b"\r\n" + sale(2), b"\n" + sale(2) + b"\noops\n"])
def test_what_is_appended_to_a_file_in_processing_is_read_too(
    folder: Path, spool: Spool, clock: FakeClock, when: str, appended: bytes
) -> None:
    """A till that still holds the file loses nothing, whether it writes before or after the commit."""
    (folder / "day.json").write_bytes(sale(1))
    with (folder / "day.json").open("ab", buffering=0) as till:
        writes = iter([appended])

        def write() -> None:
            till.write(next(writes, b""))

        store = (
            Interrupting(spool, write, lambda: None) if "before" in when else Interrupting(spool, lambda: None, write)
        )
        source = a_source(folder, store, clock)
        drain(source, clock)

    assert stored(spool) == [1, 2]
    assert files_in(folder / "processing") == []
    if b"oops" in appended:
        assert rejected(folder) == {f"day.json.from-{len(sale(1))}": (b"oops", "day.json, line 3: " + _said(folder))}


def _said(folder: Path) -> str:
    (reason,) = (folder / "rejected").glob("*.reason.txt")
    return reason.read_text().partition("line 3: ")[2]


def test_a_till_that_empties_its_folder_does_not_stop_intake(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """Also when that takes processing/ and rejected/ along."""
    shutil.rmtree(folder)
    drain(source, clock)
    (folder / "sale.json").write_bytes(sale(1))
    drain(source, clock)

    assert stored(spool) == [1]


def test_a_file_that_cannot_be_read_waits_and_stops_no_other(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under one sale must not cost the next ones; nothing stays open either."""
    for number in range(5):
        (folder / f"{number}.json").write_bytes(sale(number))
    pread, bad = os.pread, (folder / "2.json").stat().st_ino

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", failing)
    opened = open_files()
    with capture_logs() as logs:
        drain(source, clock)
    assert open_files() == opened
    assert stored(spool) == [0, 1, 3, 4]
    assert [log["event"] for log in logs].count("file_not_taken") == 1
    monkeypatch.undo()
    clock.pass_s(RETRY_S)
    drain(source, clock)

    assert stored(spool) == [0, 1, 3, 4, 2]
    assert files_in(folder / "processing") == []


def test_a_file_that_cannot_be_moved_waits_and_stops_no_other(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder with the sticky bit, where the till's files belong to the till."""
    rename = os.rename

    def failing(old: bytes, new: bytes) -> None:
        if old.endswith(b"/1.json"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(old, new)

    for number in range(3):
        (folder / f"{number}.json").write_bytes(sale(number))
    monkeypatch.setattr(os, "rename", failing)
    with capture_logs() as logs:
        drain(source, clock)
        drain(source, clock)
    assert sorted(stored(spool)) == [0, 2]
    assert [log["event"] for log in logs].count("file_not_movable") == 1
    monkeypatch.undo()
    clock.pass_s(RETRY_S + SETTLE_S)
    drain(source, clock)

    assert sorted(stored(spool)) == [0, 1, 2]


def test_a_file_taken_back_by_its_owner_stops_no_other(
    source: FolderSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A till may remove a file between our look and our move."""
    rename = os.rename

    def failing(old: bytes, new: bytes) -> None:
        if old.endswith(b"/1.json"):
            Path(os.fsdecode(old)).unlink()
        rename(old, new)

    for number in range(3):
        (folder / f"{number}.json").write_bytes(sale(number))
    monkeypatch.setattr(os, "rename", failing)
    drain(source, clock)

    assert sorted(stored(spool)) == [0, 2]


def test_an_append_that_fails_leaves_the_files_where_they_are(folder: Path, spool: Spool, clock: FakeClock) -> None:
    """A full disk is a fault of this machine: the loop says so and tries again."""
    faults = iter([LocalFault("the disk is full")])

    def fail() -> None:
        for fault in faults:
            raise fault

    source = a_source(folder, Interrupting(spool, fail, lambda: None), clock)
    (folder / "a.jsonl").write_bytes(sale(1) + b"\noops")
    source.step()
    clock.pass_s(SETTLE_S)
    opened = open_files()
    with pytest.raises(LocalFault, match="the disk is full"):
        source.step()
    assert open_files() == opened
    assert len(files_in(folder / "processing")) == 1
    drain(source, clock)

    assert stored(spool) == [1]
    assert rejected(folder)["a.jsonl"][0] == b"oops"


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """End everything at the given call that changes a file or the spool: half of them before it, half after."""
    count = 0

    def ending(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > step // 2:
                raise Killed
            result = call(*arguments, **named)
            if count == step // 2 and step % 2:
                count += 1
                raise Killed
            return result

        return called

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "fsync"):
            patched.setattr(os, name, ending(getattr(os, name)))
        for name in ("append", "release_files"):
            patched.setattr(Spool, name, ending(getattr(Spool, name)))
        with suppress(Killed):
            yield


def _lines(numbers: list[int], bad: bool) -> bytes:
    return b"".join(sale(n) + b"\n" for n in numbers) + b"oops %d\n" % numbers[0] * bad


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    bad=st.booleans(),
    huge=st.booleans(),
    kills=st.lists(st.integers(0, 60), min_size=1, max_size=4),
)
@example(sizes=[1, 1], bad=True, huge=True, kills=list(range(2, 40)))
def test_a_kill_between_any_two_steps_neither_loses_nor_doubles(
    sizes: list[int], bad: bool, huge: bool, kills: list[int]
) -> None:
    """Each life ends at another call; the last one is left to finish."""
    root = Path(tempfile.mkdtemp())
    folder, clock, monkeypatch = root / "sales", FakeClock(), pytest.MonkeyPatch()
    folder.mkdir()
    number = 0
    for place, size in enumerate(sizes):
        (folder / f"{place}.jsonl").write_bytes(_lines(list(range(number, number + size)), bad))
        number += size
    if huge:
        (folder / "huge.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    for life, kill in enumerate([*kills, 10**9]):
        spool = open_spool(root / "spool.db", clock, seed=life)
        source = a_source(folder, spool, clock, seed=life)
        is_last = life == len(kills)
        with killed_at(monkeypatch, kill):
            if is_last:
                source.start()  # listening takes half a second to end, and the steps look for themselves
            drain(source, clock)
        source.close()
        if not is_last:
            spool.close()
    with_bad = {name: content for name, (content, _) in rejected(folder).items() if name != "huge.json"}

    assert sorted(stored(spool)) == list(range(number))
    assert with_bad == ({f"{n}.jsonl": b"oops %d" % sum(sizes[:n]) for n in range(len(sizes))} if bad else {})
    assert len(list((folder / "rejected").glob("*huge.json"))) == huge
    assert files_in(folder) == files_in(folder / "processing") == []
    spool.close()
    shutil.rmtree(root)


TAKER = """
import random, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.sources.folder import FolderSource
from agent.spool import Spool
clock, rng = SystemClock(), random.SystemRandom()
spool = Spool(Path(sys.argv[2]), "pi-05", clock=clock, rng=rng)
source = FolderSource(Path(sys.argv[1]), spool, settle_s=0.001, file_bytes_max=1 << 20, wake=lambda: None,
                      clock=clock, rng=rng)
source.start()
print("ready", flush=True)
while True:
    source.step()
"""


def test_sigkill_at_random_moments_neither_loses_nor_doubles(tmp_path: Path, clock: FakeClock) -> None:
    """The real process, killed while files keep arriving by rename."""
    rng, folder, made = random.Random(11), tmp_path / "sales", 0
    command = [sys.executable, "-c", TAKER, str(folder), str(tmp_path / "spool.db")]
    folder.mkdir()
    for life in range(16):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(), text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for _ in range(rng.randrange(1, 12)):
            temporary = folder / f"{made}.tmp"
            temporary.write_bytes(sale(made) + b"\n" + sale(made + 1) + b"\n")
            temporary.rename(folder / f"{made}.jsonl")
            made += 2
            threading.Event().wait(rng.random() * 0.008)
        if life == 15:
            until(lambda: not files_in(folder) and not files_in(folder / "processing"), "all files are taken")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    spool = open_spool(tmp_path / "spool.db", clock)

    assert made > 40
    assert sorted(stored(spool)) == list(range(made))
    spool.close()


@pytest.fixture
def woken(folder: Path, spool: Spool, clock: FakeClock) -> Iterator[tuple[FolderSource, threading.Event]]:
    """Give a source that listens, and the event by which it wakes its loop."""
    wake = threading.Event()
    listening = a_source(folder, spool, clock, wake=wake.set)
    listening.start()
    yield listening, wake
    listening.close()


def _take_when_woken(source: FolderSource, wake: threading.Event, spool: Spool) -> list[int]:
    """Run the loop on wake-ups alone: no time passes, so nothing settles."""

    def taken() -> bool:
        if wake.wait(0.05):
            wake.clear()
            while source.step() == 0.0:
                pass
        return spool.state().head > 0

    until(taken, "the file is taken")
    return stored(spool)


@pytest.mark.parametrize("name", ["sale.json", "ñ \udcff.json"])
def test_a_file_is_taken_when_its_writer_closes_it(
    woken: tuple[FolderSource, threading.Event], folder: Path, spool: Spool, name: str
) -> None:
    """Without waiting for it to settle; until then it is left alone."""
    source, wake = woken
    with (folder / name).open("wb", buffering=0) as till:
        till.write(sale(1))
        source.step()
        assert files_in(folder) == [name]
    assert _take_when_woken(source, wake, spool) == [1]


def test_a_file_is_taken_when_it_is_renamed_into_place(
    woken: tuple[FolderSource, threading.Event], folder: Path, spool: Spool
) -> None:
    """From a waiting name within the folder."""
    source, wake = woken
    (folder / "sale.tmp").write_bytes(sale(1))
    (folder / "sale.tmp").rename(folder / "sale.json")
    assert _take_when_woken(source, wake, spool) == [1]


def test_a_file_is_taken_when_it_is_moved_in_from_outside(
    woken: tuple[FolderSource, threading.Event], folder: Path, spool: Spool, tmp_path: Path
) -> None:
    """From another folder of the same file system."""
    source, wake = woken
    (tmp_path / "sale").write_bytes(sale(1))
    (tmp_path / "sale").rename(folder / "sale.json")
    assert _take_when_woken(source, wake, spool) == [1]


def test_a_lost_notification_only_delays(source: FolderSource, spool: Spool, folder: Path, clock: FakeClock) -> None:
    """The loop comes back by itself and finds the file."""
    assert source.step() <= RESCAN_S
    (folder / "sale.json").write_bytes(sale(1))
    clock.pass_s(RESCAN_S)
    clock.pass_s(source.step())
    source.step()

    assert stored(spool) == [1]


def test_an_empty_file_that_is_closed_waits_for_its_writer(
    woken: tuple[FolderSource, threading.Event], folder: Path, spool: Spool, clock: FakeClock
) -> None:
    """A till may touch a file first and write it later."""
    source, wake = woken
    (folder / "sale.json").touch()
    until(wake.is_set, "the notification")
    source.step()
    assert files_in(folder) == ["sale.json"]
    wake.clear()
    (folder / "sale.json").write_bytes(sale(1))
    assert _take_when_woken(source, wake, spool) == [1]
    assert clock.monotonic_s() == 1000.0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, spool: Spool, clock: FakeClock) -> None:
    """With what to do about it."""
    (tmp_path / "file").touch()
    source = a_source(tmp_path / "file" / "sales", spool, clock)
    with pytest.raises(LocalFault, match=r"sales: Not a directory\. Check that the folder under \[folder\] path"):
        source.start()
    source.close()


ORDINARY_USER = """
import os, random, sys
from pathlib import Path
import sqlite_utils
from agent_kit import open_spool
from fakes import FakeClock
from test_folder import a_source, drain, stored, files_in
# Python itself may lie where only root may read; what it needs is loaded.
os.setgroups([]); os.setgid(65534); os.setuid(65534)
clock = FakeClock()
root = Path(sys.argv[1])
spool = open_spool(root / "spool" / "spool.db", clock)
source = a_source(root / "sales", spool, clock)
source.start()
drain(source, clock)
print(stored(spool), files_in(root / "sales" / "processing"), len(files_in(root / "sales" / "rejected")), flush=True)
source.close()
"""


@pytest.mark.root
def test_an_ordinary_user_takes_what_it_may_and_keeps_the_rest(request: pytest.FixtureRequest) -> None:
    """The agent's user is not the till's: an unreadable file waits, a large one of the till's is still set aside."""
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(tmp_path))
    tmp_path.chmod(0o755)
    for name in ("sales", "spool"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "sales" / "1.json").write_bytes(sale(1))
    (tmp_path / "sales" / "2.json").write_bytes(sale(2))
    (tmp_path / "sales" / "2.json").chmod(0o600)
    (tmp_path / "sales" / "3.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    (tmp_path / "sales" / "4.json").write_bytes(sale(4))
    done = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER, str(tmp_path)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("[1, 4] ['")
    assert done.stdout.splitlines()[-1].endswith("-2.json'] 2")
