"""A spool of an agent before this one: upgraded in place, whatever it holds, and whenever the upgrade is cut."""

import random
import shutil
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, DEVICE, NOW, environment, numbers_in, open_spool, sale
from fakes import FakeClock
from sqlite_utils import Database, Migrations

from agent import damage
from agent.schema import STEPS, VERSION
from agent.spool import Spool
from agent.statements import script_of
from wire.batch import BatchName, content_hash
from wire.record import Record, to_line

EPOCHS = ("00000000000000aa", "00000000000000bb")
STATES = ("settled", "accepted", "set_aside", "waiting")
RUN = 10
AT = "2027-02-28T00:00:00.000Z"


def old_line(number: int) -> bytes:
    """Write a record as an agent did that stored no checksums."""
    return to_line(Record(number, f"01a3f000-0000-7000-8000-{number:012x}", AT, "synced", "boot-1", 5, sale(number)))


def first_shape(database: Database) -> None:
    """Make the spool's first schema, from its file."""
    for statement in script_of("010_spool"):
        database.conn.execute(statement)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a spool of the first version, half of it in the WAL: a batch in every state, and an unsealed rest."""
    live = tmp_path_factory.mktemp("old") / "live"
    live.mkdir()
    connection = sqlite3.connect(live / "spool.db", isolation_level=None)
    connection.execute("pragma auto_vacuum = incremental")
    connection.execute("pragma journal_mode = wal")
    migrations = Migrations("scout-spool")
    migrations(name="010_spool")(first_shape)
    migrations.apply(Database(connection))
    connection.execute("insert into device values (1, ?, 'g-1')", [DEVICE])
    connection.execute("insert into taken_files values (?, 5)", [b"\xff-day"])
    connection.execute(
        "insert into epochs values (1, ?, 'boot-0', ?, 3, 3, 0, null)",
        [EPOCHS[0], AT],  # all of it forgotten
    )
    head, sealed = RUN * len(STATES) + 7, RUN * len(STATES)
    connection.execute("insert into epochs values (2, ?, 'boot-1', ?, ?, ?, 900, 5)", [EPOCHS[1], AT, head, sealed])
    for number in range(1, head + 1):
        connection.execute("insert into records values (?, ?, ?)", [2 * 10**12 + number, AT, old_line(number).decode()])
        if number == sealed // 2:
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    for index, state in enumerate(STATES):
        first, last = index * RUN + 1, (index + 1) * RUN
        jsonl = b"".join(old_line(number) + b"\n" for number in range(first, last + 1))
        name = BatchName(date(2027, 2, 28), DEVICE, EPOCHS[1], first, last, content_hash(jsonl)[:16])
        connection.execute(
            "insert into batches (epoch_number, first_seq, last_seq, key, sha256, bytes, sealed_at, state, settled_at,"
            " set_aside_boot, set_aside_mono_ms) values (2, ?, ?, ?, ?, ?, ?, ?, ?, 'boot-1', 5)",
            [first, last, name.key, content_hash(jsonl), len(jsonl), AT, state, AT if state == "settled" else None],
        )
    cut = live.parent / "cut"
    shutil.copytree(live, cut)
    connection.close()
    assert (cut / "spool.db-wal").stat().st_size > 0
    return cut


def assert_works(path: Path) -> None:
    """Everything that was in the old spool is there, and goes on its way."""
    clock = FakeClock(boot="boot-2")
    assert damage.find(path, lambda: True) == damage.Finding()
    spool = open_spool(path, clock)
    state = spool.state()
    assert (state.settled_rows, state.accepted_rows, state.set_aside_rows, state.waiting_rows) == (RUN,) * 4
    assert (state.unsealed_rows, spool.generation(), spool.bytes_taken(b"\xff-day")) == (7, "g-1", 5)
    spool.append([sale(1000)])
    spool.seal(NOW, BUILT_ON)
    clock.pass_s(2 * 24 * 3600)
    spool.retry_set_aside()
    arrived: list[int] = []
    while batch := spool.next_waiting():
        arrived += numbers_in(spool.body(batch))
        spool.accept(batch, "bucket")
    assert sorted(arrived) == [*range(2 * RUN + 1, 4 * RUN + 8), 1000]
    spool.settle(spool.awaited(100), "2027-03-03T00:00:00.000Z")
    while spool.forget("2027-03-04T00:00:00.000Z"):
        pass
    assert spool.state().settled_rows == 0
    assert spool._connection.execute("pragma user_version").fetchone()[0] == VERSION
    spool.close()
    assert damage.find(path, lambda: True) == damage.Finding()


def test_an_older_spool_is_upgraded_with_all_that_it_holds(old: Path, tmp_path: Path) -> None:
    """Batches in every state, records, notes, and what was only in the WAL."""
    assert len(STEPS) > 1
    shutil.copytree(old, tmp_path / "spool")

    assert_works(tmp_path / "spool" / "spool.db")


def test_a_damaged_older_spool_is_salvaged_too(old: Path, tmp_path: Path) -> None:
    """Its records carry no checksums: what reads as a line of its number is believed."""
    from test_salvage import a_config, held, start  # noqa: PLC0415

    shutil.copytree(old, tmp_path / "spool")
    config = a_config(tmp_path)
    connection = sqlite3.connect(config.spool_file)
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    connection.close()
    with config.spool_file.open("r+b") as file:
        file.write(bytes(100))
    start(config, FakeClock(boot="boot-2"))
    spool = Spool(config.spool_file, DEVICE, clock=FakeClock(boot="boot-2"), rng=random.Random(1))
    found = held(spool)
    spool.close()

    assert found == {(EPOCHS[1], number): old_line(number) for number in range(1, RUN * len(STATES) + 8)}


UPGRADE = """
import sys
from pathlib import Path
from agent.schema import open_database
open_database(Path(sys.argv[1])).close()
"""


@pytest.mark.root
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_an_upgrade_killed_at_any_write_leaves_a_spool_that_opens(old: Path, tmp_path: Path, call: str) -> None:
    """At one version or the next; the following start goes on."""
    assert shutil.which("strace"), "install strace (apt-get install strace)"
    killed = 0
    for step in (1, 2, 3, 4, 6, 9, 13, 18, 25, 35, 50, 80, 120):
        folder = tmp_path / str(step)
        shutil.copytree(old, folder)
        inject = f"inject={call}:signal=SIGKILL:when={step}"
        tracing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        done = subprocess.run(
            [*tracing, sys.executable, "-c", UPGRADE, str(folder / "spool.db")],
            check=False,
            env=environment(),
            timeout=60,
        )
        assert_works(folder / "spool.db")
        if done.returncode == 0:
            break
        killed += 1

    assert killed >= 3
