"""The spool, promise by promise, on real SQLite."""

import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, NOW, environment, numbers_in, open_spool, sale
from fakes import FakeClock

from agent.clock import SystemClock
from agent.errors import LocalFault, SpoolDamaged, SpoolRefused
from agent.holdings import read_state
from agent.intake import DroppedMark, TailMark, TakenFile
from agent.schema import VERSION
from agent.spool import SealLimits, Spool
from wire.heartbeat import RANGES_MAX
from wire.record import from_line

ROUNDS = 12

APPENDER = """
import random, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.spool import Spool
from agent_kit import sale
spool = Spool(Path(sys.argv[1]), "pi-05", clock=SystemClock(), rng=random.SystemRandom())
first, step = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + int(sys.argv[4]) * step, step):
    spool.append([sale(number)])
    print(number, flush=True)
"""


def an_appender(path: Path, first: int, step: int, count: int) -> subprocess.Popen[str]:
    """Start a process that appends sales one by one and says which are stored."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), str(first), str(step), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    """Let an appender begin."""
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def stored(spool: Spool) -> list[int]:
    """Every number in the spool, in the order of epochs and seqs; seal and look at the bytes that travel."""
    spool.seal(NOW, BUILT_ON)
    numbers: list[int] = []
    heads: dict[str, int] = {}
    while batch := spool.next_waiting():
        assert batch.name.first_seq == heads.get(batch.name.epoch, 0) + 1
        heads[batch.name.epoch] = batch.name.last_seq
        numbers += numbers_in(spool.body(batch))
        spool.accept(batch, "test")
    return numbers


def test_a_spool_killed_while_appending_has_every_acknowledged_sale(tmp_path: Path) -> None:
    """SIGKILL at random moments, one spool for all of them: acknowledged is stored, once, without a hole."""
    rng = random.Random(7)
    path = tmp_path / "spool.db"
    acknowledged: list[int] = []
    first = 0
    for _ in range(ROUNDS):
        process = an_appender(path, first, 1, 100_000)
        let_go(process)
        assert process.stdout
        said = [int(process.stdout.readline()) for _ in range(rng.randrange(1, 60))]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.communicate()
        acknowledged += said
        first = said[-1] + 2  # one more may be stored than could still be said
    spool = Spool(path, "pi-05", clock=SystemClock(), rng=random.SystemRandom())
    numbers = stored(spool)
    (epoch,) = spool.epoch_states()
    spool.close()

    assert len(acknowledged) >= ROUNDS
    assert not set(acknowledged) - set(numbers)
    assert len(numbers) == len(set(numbers)) == epoch.head
    assert len(numbers) <= len(acknowledged) + ROUNDS


def test_two_processes_that_open_a_new_spool_and_append_at_once_take_turns(tmp_path: Path) -> None:
    """The daemon and `add`: neither fails, no seq is given twice."""
    path = tmp_path / "spool.db"
    spool = Spool(path, "pi-05", clock=SystemClock(), rng=random.SystemRandom())
    processes = [an_appender(path, first, 2, 100) for first in (0, 1)]
    for process in processes:
        let_go(process)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    numbers = stored(spool)
    spool.close()

    assert sorted(numbers) == list(range(200))
    assert [n for n in numbers if n % 2] == list(range(1, 200, 2))


def test_processes_that_meet_at_a_spool_not_yet_made_all_get_in(tmp_path: Path) -> None:
    """SQLite doesn't wait for another process that switches a new file to WAL, so we do."""
    for number in range(3):
        path = tmp_path / str(number) / "spool.db"
        program = APPENDER.replace("spool = ", "print('here', flush=True); sys.stdin.readline()\nspool = ")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path), str(n), "4", "5"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                text=True,
            )
            for n in range(4)
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "here\n"
        for process in processes:
            let_go(process)
        for process in processes:
            _, problem = process.communicate("go\n")
            assert process.returncode == 0, problem
        with_all = open_spool(path, FakeClock())
        assert sorted(stored(with_all)) == list(range(20))
        with_all.close()


def test_a_spool_without_its_last_wal_frames_opens_and_never_gives_a_seq_again(tmp_path: Path) -> None:
    """A card that lost its last writes: what is left is whole, and the next boot begins a new epoch."""
    clock = FakeClock()
    path = tmp_path / "spool.db"
    spool = open_spool(path, clock)
    spool.append([sale(0)])
    sizes = []
    for number in range(1, 10):
        spool.append([sale(number)])
        sizes.append((tmp_path / "spool.db-wal").stat().st_size)
    assert sizes == sorted(set(sizes))
    for cut in (sizes[-1] - 1, sizes[4] + 100, sizes[2], 40, 0):
        card = tmp_path / f"card-{cut}"
        card.mkdir()
        shutil.copy(path, card / "spool.db")
        wal = (tmp_path / "spool.db-wal").read_bytes()
        (card / "spool.db-wal").write_bytes(wal[:cut])
        after = FakeClock(boot=f"boot-after-{cut}")
        left = open_spool(card / "spool.db", after, seed=2)
        left.append([sale(100)])
        epochs = [state.epoch for state in left.epoch_states()]
        numbers = stored(left)
        left.close()

        assert numbers == [*range(len(numbers) - 1), 100]
        assert len(epochs) == len(set(epochs)) == (2 if len(numbers) > 1 else 1)
    spool.close()


def test_an_older_agent_refuses_a_newer_spool_and_leaves_its_bytes(tmp_path: Path) -> None:
    """The version is in the file from the first day, or no later agent could rely on it."""
    path = tmp_path / "spool.db"
    open_spool(path, FakeClock()).close()
    connection = sqlite3.connect(path)
    assert connection.execute("pragma user_version").fetchone() == (VERSION,)
    connection.execute(f"pragma user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(SpoolRefused, match="newer agent"):
        open_spool(path, FakeClock())
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"spool.db", "spool.lock"}


def test_another_devices_spool_is_refused_and_stays_its_own(tmp_path: Path) -> None:
    """A device's name is in every batch, so a changed config must not take the spool over."""
    path = tmp_path / "spool.db"
    open_spool(path, FakeClock()).close()

    with pytest.raises(SpoolRefused, match="belongs to device pi-05, not pi-06"):
        Spool(path, "pi-06", clock=FakeClock(), rng=random.Random(1))
    spool = open_spool(path, FakeClock())
    assert spool.append([sale(1)]) == 1
    spool.close()


def test_a_file_that_is_no_spool_is_left_as_it_is(tmp_path: Path) -> None:
    """A wrong path in the config must not cost anybody a file."""
    path = tmp_path / "spool.db"
    path.write_bytes(b"somebody's notes\n" * 400)

    with pytest.raises(LocalFault, match="not a database"):
        open_spool(path, FakeClock())
    assert path.read_bytes() == b"somebody's notes\n" * 400


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Let no file of this process grow past 400 KB: an ordinary user's way to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(spool: Spool) -> int:
    """Append until it fails; return how many sales were acknowledged."""
    acknowledged = 0
    with pytest.raises(LocalFault, match="Nothing was lost"):  # noqa: PT012  (which of the appends is the disk's to say)
        while True:
            acknowledged += spool.append([sale(acknowledged, filling="x" * 5000)])
    with pytest.raises(LocalFault):
        spool.append([sale(-1, filling="x" * 5000)], [TakenFile(b"file", 1)])
    return acknowledged


@pytest.mark.usefixtures("file_size_limit")
def test_a_disk_that_takes_no_more_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """What failed is not there at all, and once there is room the spool goes on as if nothing had been."""
    spool = open_spool(tmp_path / "spool.db", FakeClock())
    acknowledged = fill(spool)
    assert spool.bytes_taken(b"file") is None
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    spool.append([sale(acknowledged)])

    assert acknowledged > 5
    assert stored(spool) == list(range(acknowledged + 1))
    spool.close()


@pytest.mark.root
def test_a_full_file_system_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """The same on a real file system that is full, and full for everybody."""
    mount = tmp_path / "card"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "scout-test", str(mount)], check=True)
    try:
        ballast = mount / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        spool = open_spool(mount / "spool.db", FakeClock())
        acknowledged = fill(spool)
        ballast.unlink()
        spool.append([sale(acknowledged)])

        assert acknowledged > 5
        assert stored(spool) == list(range(acknowledged + 1))
        spool.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_records_and_the_note_of_their_file_come_together(spool: Spool) -> None:
    """A file is consumed in the transaction that stores its rows."""
    with pytest.raises(sqlite3.IntegrityError):
        spool.append([sale(1)], [TakenFile(b"a", 1), TakenFile(b"b", None)])  # type: ignore[arg-type]

    assert spool.state().unsealed_rows == 0
    assert spool.taken_files() == []
    assert spool.append([], [TakenFile(b"\xff\x00name", 7)]) == 0
    assert spool.bytes_taken(b"\xff\x00name") == 7


def test_marks_of_tailed_files_are_kept_replaced_and_dropped(spool: Spool) -> None:
    """As they were handed over, in the order of their numbers; with the sales of the same commit or not at all."""
    mark = TailMark(7, 2**63 - 1, b"\xff\x00.jsonl", 2**40, 3, True, b"\x00" * 16, b"\xff" * 16, None)
    copy = TailMark(3, 1, b"copy.jsonl", 5, copy_of=7)
    spool.append([sale(1)], [mark, copy])
    assert spool.tail_marks() == [copy, mark]
    moved = replace(mark, inode=4, bytes_taken=2**40 + 1, skips_line=False)
    with pytest.raises(sqlite3.IntegrityError):
        spool.append([sale(2)], [moved, replace(copy, head=None)])  # type: ignore[arg-type]
    assert spool.tail_marks() == [copy, mark]
    spool.append([], [moved, DroppedMark(3)])

    assert spool.tail_marks() == [moved]
    assert stored(spool) == [1]


@pytest.mark.parametrize(
    "payload",
    [rb'{"a":"\u0000","a": 1,"n":"150.50"}', '{"n":"Señorita 🥥\u2028\x7f"}'.encode(), b'{\t"a" :\r1.50e0 }'],
)
def test_a_payload_travels_byte_for_byte(spool: Spool, payload: bytes) -> None:
    """SQLite must not change text on its way."""
    spool.append([payload])
    spool.seal(NOW, BUILT_ON)
    batch = spool.next_waiting()

    assert batch
    assert from_line(spool.body(batch).removesuffix(b"\n")).payload == payload


def test_a_run_is_sealed_by_rows_by_bytes_or_by_age(spool: Spool, clock: FakeClock) -> None:
    """Whichever comes first; what is not due stays open."""
    limits = SealLimits(rows_max=3, bytes_max=100_000, age_max_s=10.0)
    spool.append([sale(number) for number in range(7)])
    assert spool.seal(limits, BUILT_ON) == 2
    assert spool.state().unsealed_rows == 1
    spool.append([sale(7, filling="x" * 200_000)])
    assert spool.seal(limits, BUILT_ON) == 2  # the small one, and the one that fills a batch by itself
    spool.append([sale(8)])
    assert spool.seal(limits, BUILT_ON) == 0
    assert spool.seal_due_in_s(limits) == pytest.approx(10.0)
    clock.pass_s(10.0)
    assert spool.seal(limits, BUILT_ON) == 1
    assert spool.seal_due_in_s(limits) is None

    assert stored(spool) == list(range(9))


def test_what_an_earlier_boot_left_is_sealed_at_once(tmp_path: Path) -> None:
    """Its age can't be measured any more, and nothing will be added to it."""
    clock = FakeClock()
    spool = open_spool(tmp_path / "spool.db", clock)
    spool.append([sale(1)])
    clock.reboot("boot-2")

    assert spool.seal(SealLimits(2000, 1 << 20, 86_400.0), BUILT_ON) == 1
    spool.close()


def test_a_wall_clock_that_steps_back_delays_no_batch(spool: Spool, clock: FakeClock) -> None:
    """Ages come from the clock that can't step; the day is no date when the clock can't be right."""
    limits = SealLimits(2000, 1 << 20, 10.0)
    spool.append([sale(1)])
    clock.now_is(clock.now().replace(year=1970))
    clock.pass_s(10.0)

    assert spool.seal(limits, BUILT_ON) == 1
    batch = spool.next_waiting()
    assert batch
    assert batch.name.key.startswith("2000-01-01/pi-05/")


def test_a_batch_whose_bytes_changed_on_the_card_is_not_sent(spool: Spool) -> None:
    """The checksum was stored when it was sealed."""
    spool.append([sale(1), sale(2)])
    spool.seal(NOW, BUILT_ON)
    batch = spool.next_waiting()
    assert batch
    spool.body(batch)
    spool._connection.execute("update records set line = replace(line, '150', '950') where place % 10 = 1")

    with pytest.raises(SpoolDamaged, match="no longer matches its checksum"):
        spool.body(batch)
    spool._connection.execute("delete from records")
    with pytest.raises(SpoolDamaged):
        spool.body(batch)


def test_two_paths_that_refuse_in_turn_set_a_batch_aside(spool: Spool) -> None:
    """A poison batch must not keep the next ones waiting for ever."""
    spool.append([sale(1)])
    spool.seal(NOW, BUILT_ON)
    spool.append([sale(2)])
    spool.seal(NOW, BUILT_ON)
    poison = spool.next_waiting()
    assert poison
    refused = [spool.refuse(poison, f"the {path} refused", refusals_max=3) for path in ("bucket", "endpoint", "bucket")]

    assert refused == [False, False, True]
    following = spool.next_waiting()
    assert following
    assert following.number == poison.number + 1


def test_many_ranges_are_reported_as_few_that_leave_nothing_out(spool: Spool) -> None:
    """A report's size must not follow the length of an outage; too much is said to be unsettled, never too little."""
    one_row = SealLimits(1, 1 << 20, 0.0)
    for number in range(2 * RANGES_MAX + 10):
        spool.append([sale(number)])
    spool.seal(one_row, BUILT_ON)
    while batch := spool.next_waiting():
        spool.accept(batch, "bucket")
    spool.settle([batch for batch in spool.awaited(1000) if batch.number % 2], "2027-03-01T00:00:00.000Z")
    (epoch,) = spool.epoch_states()

    assert len(epoch.unsettled) == RANGES_MAX
    covered = {seq for first, last in epoch.unsettled for seq in range(first, last + 1)}
    assert covered >= set(range(2, 2 * RANGES_MAX + 11, 2))
    assert epoch.unsettled[-1][1] == epoch.head


def test_status_counts_without_writing(tmp_path: Path) -> None:
    """Also where the directory's name would mean something in a URI."""
    folder = tmp_path / "a%20b?c#d"
    spool = open_spool(folder / "spool.db", FakeClock())
    spool.append([sale(1)])
    state = spool.state()

    assert read_state(folder / "spool.db") == state
    spool.close()
    assert read_state(folder / "spool.db").unsealed_rows == 1
    with pytest.raises(LocalFault, match="does not exist"):
        read_state(tmp_path / "none.db")


def test_ids_rise_even_when_the_wall_clock_steps_back(spool: Spool, clock: FakeClock) -> None:
    """Of two versions of one sale the later one has the higher id."""
    spool.append([sale(1), sale(2)])
    clock.now_is(clock.now().replace(year=2026))
    spool.append([sale(3)])
    spool.seal(NOW, BUILT_ON)
    batch = spool.next_waiting()
    assert batch
    ids = [from_line(line).id for line in spool.body(batch).splitlines()]

    assert len(ids) == 3
    assert ids == sorted(set(ids))
    assert {text[14] for text in ids} == {"7"}
