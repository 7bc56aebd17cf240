"""A power-cut run: lives of an agent on a card, each ended by a cut under load, and what is left in the end.

One seed gives when each life is cut, which of them have a server, and which are cut while they start.
"""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent_kit import FakeServer, environment, numbers_in, until, write_config
from card import Card
from feeders import Feeder, Ledger

from agent.connection import SEQS_PER_EPOCH
from agent.errors import LocalFault
from agent.holdings import read_state
from wire.batch import BatchName

TESTS = Path(__file__).resolve().parents[1]
LIFE_MAX_S = 0.8
STARTING_IN_TEN = 2
ONLINE_IN_TEN = 3
QUICK = {
    "batch": {"rows_max": 200, "age_max_s": 0.2},
    "heartbeat": {"interval_s": 0.2},
    "upload": {"retry_wait_max_s": 0.2},
}
EPOCHS = "select number, epoch, head, head - forgotten from epochs"
RECORDS = "select place, line from records order by place"


class Damaged(Exception):
    """The agent or a feeder can't work on what the cuts left."""


@dataclass
class Outcome:
    """What a run left, and what was promised."""

    cuts: int = 0
    by_source: dict[str, set[int]] = field(default_factory=dict)
    held: Counter[int] = field(default_factory=Counter)
    epochs: int = 0
    holes: list[str] = field(default_factory=list)
    forks: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def promised(self) -> set[int]:
        """What must be held."""
        return set().union(*self.by_source.values())

    @property
    def lost(self) -> set[int]:
        """What was promised and is nowhere."""
        return self.promised - set(self.held)

    @property
    def twice(self) -> set[int]:
        """What is there more than once."""
        return {number for number, times in self.held.items() if times > 1}


class Run:
    """One agent, one card, one server, and everything that feeds it."""

    def __init__(self, home: Path, server: FakeServer, *, seed: int, synchronous: str | None = None) -> None:
        self.card = Card(home)
        self.config = home / "config.toml"
        self.ledger = Ledger()
        self._home = home
        self._server = server
        self._rng = random.Random(seed)
        self._log = home / "daemon.log"
        self._boot_id = home / "boot_id"
        self.variables = environment() | {"SCOUT_TEST_BOOT_ID": str(self._boot_id)}
        if synchronous:
            self.variables["SCOUT_TEST_SYNCHRONOUS"] = synchronous
        self._cuts = 0
        self._cut = threading.Event()
        self._surprises: list[str] = []
        self._heads: dict[str, int] = {}  # of the epochs that the spool still knows in the end
        self._patience_s = 10.0 if synchronous else 120.0  # what is lost never arrives

    def configure(self, feeders: Sequence[Feeder]) -> None:
        """Write the config: spool and sales on the card, everything else beside it."""
        sections: dict[str, dict[str, object]] = {
            "folder": {"path": str(self.card.path / "sales")},
            "spool": {"directory": str(self.card.path / "spool")},
        }
        for feeder in feeders:
            for name, keys in feeder.sections().items():
                sections[name] = sections.get(name, {}) | keys
        write_config(self._home, self._server.url, **(QUICK | sections))

    def live(self, feeders: Sequence[Feeder]) -> None:
        """One life: begin, feed, and lose power at a random moment. Raises Damaged when something fails before."""
        cut_after_s = self._rng.uniform(0.0, LIFE_MAX_S)
        cut_while_starting = self._rng.randrange(10) < STARTING_IN_TEN
        is_online = self._rng.randrange(10) < ONLINE_IN_TEN
        self._server.answer = (lambda _path, _body: None) if is_online else (lambda _path, _body: (503, b""))
        self._cut.clear()
        stop = threading.Event()
        self.card.insert()
        self.ledger.power(is_on=True)
        process = self._start()
        threads = [threading.Thread(target=self._feed, args=(feeder, stop)) for feeder in feeders]
        try:
            for thread in threads:
                thread.start()
            if not cut_while_starting:
                self._wait_until_started(process)
            stop.wait(cut_after_s)
            self._cut.set()
            self.ledger.power(is_on=False)
            self.card.cut()
            self._cuts += 1
        finally:
            stop.set()
            process.kill()
            process.wait()
            for thread in threads:
                thread.join()
            self.card.remove()
        if self._surprises:
            raise Damaged(f"with power still on: {self._surprises}; {self._log.read_text()}")

    def outcome(self) -> Outcome:
        """Let the last life deliver everything, and compare what is held with what was promised."""
        outcome = Outcome(self._cuts, self.ledger.promised)
        self._server.answer = lambda _path, _body: None
        self.card.insert()
        process = self._start()
        try:
            self._wait_until_started(process)
            promised = outcome.promised
            until(lambda: self._has_arrived(promised) or process.poll() is not None, "it arrives", self._patience_s)
            self._fail_if_ended(process)
        except (Damaged, AssertionError, LocalFault) as error:
            outcome.trouble = str(error)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            try:
                self._compare(outcome)
            finally:
                self.card.remove()
        return outcome

    def _start(self) -> subprocess.Popen[bytes]:
        self._boot_id.write_text(str(uuid.UUID(int=self._rng.getrandbits(128))))
        self._log.write_bytes(b"")
        command = [sys.executable, str(TESTS / "power" / "lab_agent.py"), "run", "--config", str(self.config)]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stderr=log, env=self.variables)

    def _wait_until_started(self, process: subprocess.Popen[bytes]) -> None:
        until(lambda: b"agent_started" in self._log.read_bytes() or process.poll() is not None, "the agent starts")
        self._fail_if_ended(process)

    def _fail_if_ended(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            raise Damaged(self._log.read_text())

    def _feed(self, feeder: Feeder, stop: threading.Event) -> None:
        try:
            feeder.feed(self.ledger, stop)
        except OSError as error:
            if not self._cut.is_set():
                self._surprises.append(f"{feeder.name}: {error}")

    def _has_arrived(self, promised: set[int]) -> bool:
        state = read_state(self.card.path / "spool" / "spool.db")
        return not (state.unsent_rows or state.accepted_rows) and promised <= set(self._server.numbers())

    def _compare(self, outcome: Outcome) -> None:
        lines: dict[tuple[str, int], bytes] = {}
        for epoch, seq, line in [*self._lines_of_server(), *self._lines_of_spool(outcome)]:
            known = lines.setdefault((epoch, seq), line)
            if known != line:
                outcome.forks.append(f"{epoch} {seq}")
        outcome.held = Counter(number for line in lines.values() for number in numbers_in(line))
        for epoch in {epoch for epoch, _ in lines}:
            seqs = {seq for known, seq in lines if known == epoch}
            if seqs != set(range(1, self._heads.get(epoch, len(seqs)) + 1)):
                outcome.holes.append(f"{epoch}: {len(seqs)} records up to {max(seqs)}")
        outcome.epochs = len({epoch for epoch, _ in lines})

    def _lines_of_server(self) -> Iterator[tuple[str, int, bytes]]:
        for key, jsonl in self._server.stored.items():
            name = BatchName.parse(key)
            for seq, line in enumerate(jsonl.splitlines(), name.first_seq):
                yield name.epoch, seq, line

    def _lines_of_spool(self, outcome: Outcome) -> Iterator[tuple[str, int, bytes]]:
        path = self.card.path / "spool" / "spool.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            try:
                epochs = {number: seen for number, *seen in connection.execute(EPOCHS)}
                records = connection.execute(RECORDS).fetchall()
            except sqlite3.Error as error:
                outcome.trouble = outcome.trouble or str(error)
                return
        # A long run on a quick machine fills the card: then settled records are forgotten, which the server holds.
        present = Counter(place // SEQS_PER_EPOCH for place, _ in records)
        outcome.holes += [
            f"{epoch}: head {head}, {present[number]} records, {kept} expected"
            for number, (epoch, head, kept) in epochs.items()
            if present[number] != kept
        ]
        self._heads = {epoch: head for epoch, head, _ in epochs.values()}
        for place, line in records:
            yield epochs[place // SEQS_PER_EPOCH][0], place % SEQS_PER_EPOCH, line.encode()
