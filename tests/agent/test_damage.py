"""Damage, met by the real program: moved aside, never deleted; intake goes on, and what can be read is sent."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agent_kit import FakeServer, environment, open_spool, sale, until, write_config
from daemons import QUICK, Daemon, agent_command, drop, run_agent
from fakes import FakeClock

from agent import config as configuration
from agent import damage
from agent.clock import SystemClock
from agent.errors import LocalFault, SpoolMalformed, SpoolRefused
from agent.intake import TakenFile
from agent.schema import VERSION
from agent.space import space_of
from agent.upkeep import begin

PAGE = 4096


@pytest.fixture(scope="session")
def cut_spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a spool of 300 sales, as a power cut left it; to be copied."""
    folder = tmp_path_factory.mktemp("cut")
    program = (
        "import random, sys, os, signal\n"
        "from pathlib import Path\n"
        "from agent.clock import SystemClock\n"
        "from agent.spool import Spool\n"
        "from agent_kit import sale, NOW, BUILT_ON\n"
        "spool = Spool(Path(sys.argv[1]), 'pi-05', clock=SystemClock(), rng=random.SystemRandom())\n"
        "for first in range(0, 300, 50):\n"
        "    spool.append([sale(n, filling='x' * 300) for n in range(first, first + 50)])\n"
        "    if first < 250: spool.seal(NOW, BUILT_ON)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder / "spool.db")], check=False, env=environment())
    assert done.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def config(tmp_path: Path, server: FakeServer, cut_spool: Path) -> Path:
    """Return a config for a quick agent with that spool."""
    (tmp_path / "sales").mkdir()
    shutil.copytree(cut_spool, tmp_path / "spool")
    return write_config(tmp_path, server.url, **QUICK)


def checkpointed(file: Path) -> None:
    """Move all of the WAL into the database, and leave none."""
    connection = sqlite3.connect(file)
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    connection.close()


def overwrite(file: Path, place: int, content: bytes) -> None:
    """Damage a file that nobody has open."""
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(content)


def no_header(file: Path) -> None:
    """Zero what says that it is a database."""
    checkpointed(file)
    overwrite(file, 0, bytes(100))


def no_first_page(file: Path) -> None:
    """Zero the page that says which tables there are."""
    checkpointed(file)
    overwrite(file, 0, bytes(PAGE))


def zeroed_pages(file: Path) -> None:
    """Zero some pages in the middle."""
    checkpointed(file)
    overwrite(file, file.stat().st_size // PAGE // 2 * PAGE, bytes(3 * PAGE))


def cut_off(file: Path) -> None:
    """Lose the end."""
    checkpointed(file)
    os.truncate(file, file.stat().st_size // PAGE // 2 * PAGE + 100)


def foreign(file: Path) -> None:
    """Overwrite all of it with something else."""
    checkpointed(file)
    file.write_bytes(b"somebody's notes\n" * 400)


def gone(file: Path) -> None:
    """Lose the database, of which the WAL is left."""
    file.unlink()


def emptied(file: Path) -> None:
    """Lose all content of the database, of which the WAL is left."""
    os.truncate(file, 0)


def one_altered_sale(file: Path) -> None:
    """Change one digit in one sale: no structure of SQLite's is hurt."""
    checkpointed(file)
    content = file.read_bytes()
    overwrite(file, content.index(b"t-77"), b"t-78")


DAMAGES = [no_header, no_first_page, zeroed_pages, cut_off, foreign, gone, emptied, one_altered_sale]


@pytest.mark.parametrize("harm", [no_first_page, zeroed_pages, gone, one_altered_sale])
def test_a_damaged_spool_is_moved_aside_and_what_can_be_read_is_sent(
    config: Path, start: Callable[[], Daemon], server: FakeServer, harm: Callable[[Path], None]
) -> None:
    """Nothing is deleted; intake goes on within seconds; what is missing is named; all by itself."""
    file = config.parent / "spool" / "spool.db"
    harm(file)
    files = {
        name: (config.parent / "spool" / name).read_bytes()
        for name in ("spool.db", "spool.db-wal")
        if (config.parent / "spool" / name).exists()
    }
    daemon = start()
    drop(config, "new", 1000)
    until(lambda: 1000 in server.numbers(), "the new sale arrives")
    until(lambda: "salvage_finished" in daemon.events(), "the rest is salvaged")
    until(lambda: is_delivered(server, file), "it is delivered")
    (folder,) = damage.folders(file)
    numbers = sorted(server.numbers())
    reported = reported_lost(server)

    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= {*range(300), 1000}
    assert {name: (folder / name).read_bytes() for name in files} == files
    if harm in (no_first_page, gone):
        assert len(numbers) == 301
    elif harm is one_altered_sale:
        assert (set(range(300)) - set(numbers), reported) == ({77}, {78})
    elif harm is zeroed_pages:
        assert {seq - 1 for seq in reported} == set(range(300)) - set(numbers) != set()
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()


def last_report(server: FakeServer) -> Any:
    """What the agent said in its last call home."""
    return json.loads([body for path, _, body in list(server.requests) if "heartbeat" in path][-1])


def is_delivered(server: FakeServer, file: Path) -> bool:
    """Whether nothing waits any more, by a report that was made after the salvage."""
    with closing(sqlite3.connect(file)) as connection:
        (finished,) = connection.execute("select finished_at from salvages").fetchone()
    report = last_report(server)
    return report["sent_at"] > finished and report["waiting_rows"] == report["accepted_rows"] == 0


def reported_lost(server: FakeServer) -> set[int]:
    """Seqs that the last report names as lost."""
    epochs = last_report(server)["epochs"]
    return {seq for epoch in epochs for first, last in epoch["lost"] for seq in range(first, last + 1)}


def test_a_daemon_killed_over_and_over_while_it_salvages_loses_and_doubles_nothing(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """Each start goes on where the last one was cut off."""
    server.answer = lambda _path, _body: (503, b"busy")
    file = config.parent / "spool" / "spool.db"
    no_header(file)
    rng = random.Random(5)
    for _ in range(4):
        daemon = start()
        until(lambda log=daemon: "agent_started" in log.events(), "it runs")
        threading.Event().wait(rng.random() * 0.03)  # any moment will do
        daemon.process.kill()
        daemon.process.wait()
    server.answer = lambda _path, _body: None
    start()
    until(lambda: len(server.numbers()) >= 300, "everything arrives", 30)

    assert sorted(server.numbers()) == list(range(300))
    assert len(damage.folders(file)) == 1


def moved_aside(file: Path) -> Path | None:
    """Carry out an intent as a start does."""
    with damage.alone(file):
        return damage.move_aside(file)


def test_moving_aside_waits_for_whoever_has_the_spool_open(tmp_path: Path) -> None:
    """What `add` acknowledges must not land in a file that was looked through already."""
    clock = FakeClock()
    spool = open_spool(tmp_path / "spool.db", clock)
    damage.mark(tmp_path / "spool.db", "a test", clock)
    moved: list[Path | None] = []
    thread = threading.Thread(target=lambda: moved.append(moved_aside(tmp_path / "spool.db")))
    thread.start()
    spool.append([sale(1)])
    assert not moved
    spool.close()
    thread.join()

    assert [folder for folder in moved if folder] == damage.folders(tmp_path / "spool.db")
    assert moved_aside(tmp_path / "spool.db") is None


def test_sales_added_by_hand_while_a_damaged_spool_is_moved_are_all_kept(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """Before, meanwhile or after: what `add` says is stored arrives, once; what it refuses it did not store."""
    file = config.parent / "spool" / "spool.db"
    no_header(file)
    adding = [
        subprocess.Popen(
            agent_command(config, "add", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(4)
    ]
    start()
    stored = []
    for number, process in enumerate(adding, 1000):
        output, problem = process.communicate(sale(number))
        stored += [number] if process.returncode == 0 else []
        assert output == b"1 sales stored\n" or b"not a database" in problem
    until(lambda: {*range(300), *stored} <= set(server.numbers()), "they arrive", 30)

    assert sorted(server.numbers()) == [*range(300), *stored]


def always() -> bool:
    """No limit."""
    return True


def test_trouble_with_reading_proves_nothing(tmp_path: Path) -> None:
    """A path that can't be opened is said, and left."""
    (tmp_path / "spool.db").mkdir()
    (tmp_path / "spool.db" / "something").touch()

    with pytest.raises(LocalFault, match="left as it is"):
        damage.find(tmp_path / "spool.db", always)


def test_a_check_that_takes_too_long_is_finished_later(config: Path) -> None:
    """And finds then what it had not seen; a new or sound spool gives nothing."""
    file = config.parent / "spool" / "spool.db"
    assert damage.find(file, always) == damage.Finding()
    assert damage.find(config.parent / "none.db", always) == damage.Finding()
    one = damage.find(file, lambda: False)
    zeroed_pages(file)

    assert not one.finished
    assert damage.find(file, always).reasons


def test_text_that_can_not_be_decoded_is_damage_and_is_not_quoted(config: Path) -> None:
    """Sqlite3's own message quotes it, and it may be a customer's."""
    file = config.parent / "spool" / "spool.db"
    connection = sqlite3.connect(file)
    connection.execute("update batches set key = cast(x'ff4d61726961' as text) where number = 1")
    connection.commit()
    connection.close()
    spool = open_spool(file, FakeClock())
    with pytest.raises(SpoolMalformed, match="no UTF-8") as caught, spool._faults():
        spool.next_waiting()
    spool.close()

    assert "Maria" not in str(caught.value)
    assert damage.find(file, always).reasons
    assert "Maria" not in str(damage.find(file, always).reasons)


def test_a_newer_agents_spool_is_never_moved(config: Path) -> None:
    """Nor is a byte of it touched, the WAL that it left included. A version that only damage explains is damage."""
    file = config.parent / "spool" / "spool.db"
    loaded = configuration.load(config)
    connection = sqlite3.connect(file)
    connection.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values ('s', '990', 'x')")
    connection.execute(f"pragma user_version = {VERSION + 1}")
    connection.commit()
    newer = config.parent / "newer"
    newer.mkdir()
    for name in ("spool.db", "spool.db-wal"):
        shutil.copy(file.with_name(name), newer / name)
    connection.close()
    for name in ("spool.db", "spool.db-wal"):
        shutil.copy(newer / name, file.with_name(name))
    file.with_name("spool.db-shm").unlink(missing_ok=True)
    before = {name: file.with_name(name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    assert before["spool.db-wal"]

    assert damage.find(file, always) == damage.Finding()
    for command in (["run"], ["add", "-"]):
        done = run_agent(config, *command, given=sale(1))
        assert (done.returncode, b"newer agent" in done.stderr) == (1, True)
    assert {name: file.with_name(name).read_bytes() for name in before} == before
    connection = sqlite3.connect(file)
    connection.execute(f"pragma user_version = {VERSION + 77}")
    connection.close()
    assert damage.find(file, always).reasons == ("its version and its list of steps differ",)
    assert loaded.spool_file == file


def test_another_devices_damaged_spool_is_left_alone(config: Path) -> None:
    """A changed config must not take it over, sound or not."""
    zeroed_pages(config.parent / "spool" / "spool.db")
    config.write_text(config.read_text().replace('id = "pi-05"', 'id = "pi-06"'))
    loaded = configuration.load(config)
    with pytest.raises(SpoolRefused, match="belongs to device pi-05"):
        begin(loaded, clock=SystemClock(), rng=random.Random(1), space=space_of(loaded))

    assert damage.folders(loaded.spool_file) == []


def test_what_a_file_already_gave_is_known_after_the_salvage(config: Path) -> None:
    """Else a file that was in processing/ at the wrong moment would be taken twice."""
    loaded = configuration.load(config)
    spool = open_spool(loaded.spool_file, FakeClock())
    spool.append([], [TakenFile(b"\xff-day", 77)])
    spool.close()
    zeroed_pages(loaded.spool_file)
    assert begin(loaded, clock=FakeClock(), rng=random.Random(1), space=space_of(loaded)) is not None
    fresh = open_spool(loaded.spool_file, FakeClock())
    assert fresh.bytes_taken(b"\xff-day") == 77
    fresh.close()


def test_a_note_that_the_card_damaged_too_stops_nothing(config: Path) -> None:
    """The files are moved all the same, and salvaged; why is not known any more."""
    loaded = configuration.load(config)
    damage.mark(loaded.spool_file, "a test", SystemClock())
    (loaded.spool_file.parent / "spool.damaged").write_bytes(b"\x00" * 40)
    begin(loaded, clock=SystemClock(), rng=random.Random(1), space=space_of(loaded))
    (folder,) = damage.folders(loaded.spool_file)

    assert (folder / "spool.db").stat().st_size > 0
    assert damage.reason_of(folder) == "not known any more"


STRACE = shutil.which("strace")


@pytest.mark.root
def test_a_cut_at_any_step_of_moving_aside_is_finished_at_the_next_start(config: Path, server: FakeServer) -> None:
    """Killed at each rename in turn: the files end in one folder, and every sale arrives."""
    assert STRACE, "install strace (apt-get install strace)"
    file = config.parent / "spool" / "spool.db"
    no_header(file)
    copy = config.parent / "copy"
    shutil.copytree(file.parent, copy)
    killed = 0
    program = (
        "import random, sys\n"
        "from pathlib import Path\n"
        "from agent import config, damage\n"
        "from agent.clock import SystemClock\n"
        "damage.mark(Path(sys.argv[1]), 'a test', SystemClock())\n"
        "with damage.alone(Path(sys.argv[1])): damage.move_aside(Path(sys.argv[1]))\n"
    )
    for step in range(1, 10):
        shutil.rmtree(file.parent)
        shutil.copytree(copy, file.parent)
        inject = f"inject=rename,renameat,renameat2:signal=SIGKILL:when={step}"
        done = subprocess.run(
            [
                STRACE,
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=rename,renameat,renameat2",
                "-e",
                inject,
                sys.executable,
                "-c",
                program,
                str(file),
            ],
            check=False,
            env=environment(),
        )
        if done.returncode == 0:
            break
        killed += 1
        damage.mark(file, "a test", SystemClock())
        folder = moved_aside(file)
        assert [folder] == damage.folders(file) == list(file.parent.glob("damaged-*"))
        assert not file.exists()
        assert (damage.folders(file)[0] / "spool.db").stat().st_size > PAGE
    assert killed >= 3
    assert server.numbers() == []


@pytest.mark.root
@pytest.mark.parametrize("call", ["pread64:error=EIO:when=3+", "openat:error=EACCES:when=1+"])
def test_a_card_that_cannot_be_read_now_is_no_damaged_spool(config: Path, server: FakeServer, call: str) -> None:
    """Nothing is moved for a hiccup or a missing right: the agent says so, and the next start finds everything."""
    assert STRACE, "install strace (apt-get install strace)"
    file = config.parent / "spool" / "spool.db"
    path = ["-P", str(file)]
    done = subprocess.run(
        [STRACE, "-f", "-qq", "-o", "/dev/null", *path, "-e", f"inject={call}", *agent_command(config, "run")],
        check=False,
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 1
    assert str(file).encode() in done.stderr
    assert b"Traceback" not in done.stderr
    assert damage.folders(file) == []
    assert damage.find(file, always) == damage.Finding()
    assert server.numbers() == []
