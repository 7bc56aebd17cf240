"""Salvage: whatever the card does to a spool, each record comes back as it was or is named as lost."""

import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, DEVICE, NOW, open_spool, sale, write_config
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pages import harm

from agent import config as configuration
from agent import damage
from agent.config import Config
from agent.errors import SpoolDamaged, SpoolMalformed
from agent.intake import TailMark, TakenFile, TakenPost
from agent.salvage import Salvage, Stopped
from agent.space import space_of
from agent.spool import Batch, SealLimits, Spool
from agent.upkeep import begin
from wire.batch import BatchName

SERVER_TIME = "2027-03-01T02:30:00.000Z"
EXAMPLES = int(os.environ.get("SCOUT_DAMAGE_EXAMPLES", "60"))
SMALL = SealLimits(40, 1 << 20, 0.0)


@dataclass
class Life:
    """A spool that has lived, as a cut left it, and all that is known of it from outside."""

    folder: Path
    records: dict[tuple[str, int], bytes] = field(default_factory=dict)
    settled: set[tuple[str, int]] = field(default_factory=set)
    forgotten: set[tuple[str, int]] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)  # of batches, with their state


def lived(folder: Path) -> Life:
    """Two boots, some hundred records in every state, of which the last are in the WAL only."""
    live = folder / "live"
    clock = FakeClock()
    life = Life(folder)
    spool = open_spool(live / "spool.db", clock)
    spool.enter_generation("g-1")
    made = 0

    def sell(count: int) -> None:
        nonlocal made
        size = 6000 if made % 7 == 0 else 150
        spool.append([sale(n, filling="x" * size) for n in range(made, made + count)], [TakenFile(b"day", made)])
        made += count

    for _ in range(12):
        sell(40)
    spool.seal(SMALL, BUILT_ON)
    for _ in range(8):
        batch = spool.next_waiting()
        assert batch
        spool.accept(batch, "bucket")
    spool.settle(spool.awaited(3), "2027-01-01T00:00:00.000Z")
    forgotten = spool._connection.execute(
        "select epoch, first_seq, last_seq from batches join epochs on epochs.number = epoch_number"
        " where state = 'settled'"
    ).fetchall()
    for row in spool._connection.execute("select epoch, place, line from records, epochs where number = 1"):
        life.records[(row["epoch"], row["place"] % 10**12)] = row["line"].encode()
    assert spool.forget("2027-02-01T00:00:00.000Z") == 120
    life.forgotten = {(row["epoch"], seq) for row in forgotten for seq in range(row["first_seq"], row["last_seq"] + 1)}
    spool.settle(spool.awaited(2), SERVER_TIME)
    clock.reboot("boot-2")
    spool._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    for _ in range(5):
        sell(30)
    spool.seal(SealLimits(40, 1 << 20, 1e9), BUILT_ON)
    shutil.copytree(live, folder / "spool")
    for row in spool._connection.execute(
        "select epoch, place, line from records join epochs on number = place / 1000000000000"
    ):
        life.records[(row["epoch"], row["place"] % 10**12)] = row["line"].encode()
    for row in spool._connection.execute(
        "select key, state, epoch, first_seq, last_seq from batches join epochs on epochs.number = epoch_number"
    ):
        life.keys[row["key"]] = row["state"]
        if row["state"] == "settled":
            life.settled |= {(row["epoch"], seq) for seq in range(row["first_seq"], row["last_seq"] + 1)}
    spool.close()
    return life


def a_config(folder: Path) -> Config:
    """The config of the device whose spool lies in folder/spool."""
    return configuration.load(write_config(folder, "http://127.0.0.1:1"))


def start(config: Config, clock: FakeClock, seed: int = 9) -> None:
    """What the daemon does at its start, and then in its upkeep thread."""
    space = space_of(config)
    begin(config, clock=clock, rng=random.Random(seed), space=space)
    salvage = Salvage(config.spool_file, DEVICE, clock=clock, rng=random.Random(seed), space=space)
    for folder in damage.folders(config.spool_file):
        known = salvage.known(folder)
        assert known
        if not known.finished_at:
            salvage.take_in(folder, lambda: True, lambda _page, _pages: None)
    salvage.close()


def held(spool: Spool) -> dict[tuple[str, int], bytes]:
    """Every record of every batch, once, as it would travel."""
    spool.seal(NOW, BUILT_ON)
    found: dict[tuple[str, int], bytes] = {}
    for row in spool._connection.execute("select number, key, sha256, bytes from batches order by number").fetchall():
        batch = Batch(row["number"], BatchName.parse(row["key"]), row["sha256"], row["bytes"])
        lines = spool.body(batch).splitlines()
        assert len(lines) == batch.rows
        for seq, line in enumerate(lines, batch.name.first_seq):
            assert (batch.name.epoch, seq) not in found
            found[(batch.name.epoch, seq)] = line
    return found


def lost(spool: Spool) -> set[tuple[str, int]]:
    """Every seq that is reported as lost."""
    return {
        (state.epoch, seq)
        for state in spool.epoch_states()
        for first, last in state.lost
        for seq in range(first, min(last, 10_000) + 1)
    }


def opened(config: Config, clock: FakeClock) -> tuple[Spool, dict[tuple[str, int], bytes]]:
    """Start, as often as damage turns up that no check had seen; return the spool and what it holds."""
    for attempt in range(5):
        try:
            start(config, clock, seed=attempt)
            spool = open_spool(config.spool_file, clock, seed=100 + attempt)
            try:
                return spool, held(spool)
            except BaseException:
                spool.close()
                raise
        except (SpoolDamaged, SpoolMalformed) as fault:
            damage.mark(config.spool_file, str(fault), clock)
    raise AssertionError("still damaged after five starts")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Give a spool that has lived; copy it before it is harmed."""
    return lived(tmp_path_factory.mktemp("life"))


TALLY: Counter[str] = Counter()


def check_random_damage(life: Life, folder: Path, rng: random.Random) -> None:
    """One spool, harmed at random, opened and salvaged."""
    shutil.copytree(life.folder / "spool", folder / "spool")
    files = [folder / "spool" / file for file in ("spool.db", "spool.db-wal")]
    for _ in range(rng.choice([1, 1, 2, 5])):
        harm(files[rng.random() < 0.2], rng)
    config = a_config(folder)
    spool, found = opened(config, FakeClock(boot="boot-3"))
    heads = {state.epoch: state.head for state in spool.epoch_states()}
    missing = set(life.records) - life.forgotten - set(found) - life.settled
    named = lost(spool)
    beyond = {(epoch, seq) for epoch, seq in missing if seq > heads.get(epoch, 0)}
    assert spool.append([sale(1)]) == 1
    spool.close()

    assert {key: line for key, line in found.items() if life.records.get(key) != line} == {}
    assert missing - named - beyond == set()
    assert not named & set(found)
    TALLY["lost" if missing else "whole"] += 1
    TALLY["salvaged" if damage.folders(config.spool_file) else "sound"] += 1
    TALLY["beyond"] += bool(beyond)


def test_whatever_is_damaged_each_record_comes_back_as_it_was_or_is_named_as_lost(life: Life) -> None:
    """Flipped, zeroed, overwritten or cut, database or WAL: byte for byte, or reported; never twice, never altered."""
    TALLY.clear()

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def check(seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            check_random_damage(life, Path(name), random.Random(seed))

    check()

    print(TALLY)
    assert TALLY["lost"] > 3
    assert TALLY["whole"] > 3
    assert TALLY["salvaged"] > 10


def copied(life: Life, folder: Path) -> Config:
    """Give a copy of the spool that has lived, not damaged yet."""
    shutil.copytree(life.folder / "spool", folder / "spool")
    return a_config(folder)


def aside(config: Config, clock: FakeClock) -> None:
    """Let a sound spool be moved aside: what is salvaged from it must then be all of it."""
    damage.mark(config.spool_file, "a test", clock)
    begin(config, clock=clock, rng=random.Random(3), space=space_of(config))


def a_salvage(config: Config, clock: FakeClock) -> Salvage:
    """Open the new spool for salvage."""
    return Salvage(config.spool_file, DEVICE, clock=clock, rng=random.Random(4), space=space_of(config))


def test_whole_batches_keep_their_names_and_states_and_what_was_settled_is_not_sent_again(
    life: Life, tmp_path: Path
) -> None:
    """Receipts are awaited under the same names; only what no batch covered is sealed anew."""
    clock = FakeClock(boot="boot-3")
    config = copied(life, tmp_path)
    aside(config, clock)
    salvage = a_salvage(config, clock)
    done = salvage.take_in(damage.folders(config.spool_file)[0], lambda: True, lambda _page, _pages: None)
    states = dict(salvage._connection.execute("select key, state from batches").fetchall())
    found = held(salvage)
    reports = salvage.epoch_states()
    salvage.close()

    assert {key: states.get(key) for key in life.keys} == life.keys
    assert set(life.keys.values()) == {"waiting", "accepted", "settled"}
    assert len(states) == len(life.keys) + 1
    assert found == {key: line for key, line in life.records.items() if key not in life.forgotten}
    assert (done.rows_salvaged, done.rows_lost) == (len(found), 0)
    assert [state.lost for state in reports] == [(), ()]


def test_a_salvage_stopped_at_any_moment_goes_on_and_doubles_nothing(life: Life, tmp_path: Path) -> None:
    """Also when batches were delivered, settled and forgotten in between."""
    clock = FakeClock(boot="boot-3")
    config = copied(life, tmp_path)
    aside(config, clock)
    (folder,) = damage.folders(config.spool_file)
    arrived: list[tuple[str, str]] = []
    stops = 0
    while True:
        salvage = a_salvage(config, clock)
        budget = 60 + 5 * stops
        steps = iter(range(10_000))
        try:
            salvage.take_in(folder, lambda left=budget, steps=steps: next(steps) < left, lambda _page, _pages: None)
        except Stopped:
            stops += 1
        assert damage.find(config.spool_file, lambda: True) == damage.Finding()
        while batch := salvage.next_waiting():
            arrived.append((batch.name.key, salvage.body(batch).decode()))
            salvage.accept(batch, "bucket")
        known = salvage.known(folder)
        finished = known is not None and known.finished_at is not None
        if finished:
            found = held(salvage)
        salvage.close()
        if finished:
            break

    assert stops > 5
    assert found == {key: line for key, line in life.records.items() if key not in life.forgotten}
    assert len(arrived) == len(set(arrived)) > 5


def test_what_was_settled_in_another_life_of_the_server_is_awaited_again(life: Life, tmp_path: Path) -> None:
    """The database was restored while the salvage ran: what it no longer has must be sent again."""
    clock = FakeClock(boot="boot-3")
    config = copied(life, tmp_path)
    aside(config, clock)
    salvage = a_salvage(config, clock)
    assert salvage.generation() == "g-1"
    salvage.enter_generation("g-2")
    salvage.take_in(damage.folders(config.spool_file)[0], lambda: True, lambda _page, _pages: None)
    states = dict(salvage._connection.execute("select key, state from batches").fetchall())
    salvage.close()

    assert "settled" in life.keys.values()
    assert {key: states[key] for key in life.keys} == {
        key: "accepted" if state == "settled" else state for key, state in life.keys.items()
    }


def test_lost_runs_are_reported_until_the_server_has_long_heard_them(life: Life, tmp_path: Path) -> None:
    """They outlive the records of their epoch, and end like settled batches do."""
    clock = FakeClock(boot="boot-3")
    config = copied(life, tmp_path)
    spool = open_spool(config.spool_file, clock)
    old = spool.epoch_states()[-1]
    spool._connection.execute("delete from records where place between 2000000000005 and 2000000000007")
    spool.close()
    aside(config, clock)
    salvage = a_salvage(config, clock)
    salvage.take_in(damage.folders(config.spool_file)[0], lambda: True, lambda _page, _pages: None)
    assert {state.epoch: state.lost for state in salvage.epoch_states() if state.lost} == {old.epoch: ((5, 7),)}
    assert salvage.state().lost_rows == 3
    while batch := salvage.next_waiting():
        salvage.accept(batch, "bucket")
    salvage.append([sale(1)])
    salvage.settle(salvage.awaited(1000), SERVER_TIME)
    while salvage.forget("2027-03-02T00:00:00.000Z"):
        pass
    assert [state.lost for state in salvage.epoch_states()] == [((5, 7),), ()]
    salvage.note_losses_heard(salvage.epoch_states(), "2027-03-02T00:00:00.000Z")
    assert [state.lost for state in salvage.epoch_states()] == [((5, 7),), ()]
    salvage.seal(NOW, BUILT_ON)
    waiting = salvage.next_waiting()
    assert waiting
    salvage.accept(waiting, "bucket")
    salvage.settle(salvage.awaited(1000), SERVER_TIME)
    salvage.forget("2027-03-12T00:00:00.000Z")

    assert [(state.epoch == old.epoch, state.lost) for state in salvage.epoch_states()] == [(False, ())]
    assert salvage.state().lost_rows == 0
    assert damage.find(config.spool_file, lambda: True) == damage.Finding()
    salvage.close()


def test_a_spool_damaged_again_while_salvage_runs_gives_everything_in_the_end(life: Life, tmp_path: Path) -> None:
    """Two folders, the older one not finished: what both have comes once."""
    clock = FakeClock(boot="boot-3")
    config = copied(life, tmp_path)
    aside(config, clock)
    salvage = a_salvage(config, clock)
    steps = iter(range(10_000))
    with pytest.raises(Stopped):
        salvage.take_in(damage.folders(config.spool_file)[0], lambda: next(steps) < 230, lambda _page, _pages: None)
    begun = salvage.state()
    salvage.close()
    aside(config, clock)
    spool, found = opened(config, clock)
    spool.close()

    assert begun.waiting_rows + begun.accepted_rows > 0
    assert len(damage.folders(config.spool_file)) == 2
    assert found == {key: line for key, line in life.records.items() if key not in life.forgotten}


def test_what_the_sources_have_taken_is_still_known_when_the_first_page_is_gone(tmp_path: Path) -> None:
    """Without the schema the tables have no names; forgotten marks would send every tailed sale again."""
    config = a_config(tmp_path)
    clock = FakeClock()
    spool = open_spool(config.spool_file, clock)
    taken = {b"%016x-day-%d" % (number, number): number for number in range(300)}  # more than one page of them
    marks = [TailMark(n, 70 + n, b"sales.jsonl", 4 * n, n, bool(n % 2), b"\x01" * 16, b"\x02" * 16) for n in (1, 2, 3)]
    posts = {f"key-{number}": f"{number:064x}" for number in range(50)}
    for number in range(300):
        spool.append([sale(number)])
    spool.append([], [TakenFile(name, size) for name, size in taken.items()])
    spool.append([], marks)
    spool.append([], [TakenPost(key, sha256, None) for key, sha256 in posts.items()])
    spool.append([sale(300)], [TailMark(2, 72, b"sales.jsonl", 900, 20)])
    spool.close()
    with config.spool_file.open("r+b") as file:
        file.write(random.Random(4).randbytes(64))

    start(config, clock)
    spool = open_spool(config.spool_file, clock)

    assert damage.folders(config.spool_file)
    assert {name: spool.bytes_taken(name) for name in spool.taken_files()} == taken
    assert spool.tail_marks() == [marks[0], TailMark(2, 72, b"sales.jsonl", 900, 20), marks[2]]
    assert spool.posts() == posts
    assert len(held(spool)) == 301
    spool.close()
