"""The spool against a model that a reader can check at a glance: random lives, one real SQLite file."""

# ruff: noqa: D102  (rules and invariants are named by what they do and state)

import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent_kit import BUILT_ON, open_spool, sale
from fakes import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.intake import TakenFile
from agent.spool import Batch, SealLimits
from wire.batch import BatchName
from wire.record import format_instant, from_line

REFUSALS_MAX = 2
FOREVER_S = 1e9


@dataclass
class ModelBatch:
    """A sealed run as the model sees it."""

    epoch: str
    first: int
    last: int
    body: bytes
    state: str = "waiting"
    resend: int = 0
    refusals: int = 0
    settled_at: str = ""
    exported: bool = False

    @property
    def is_awaited(self) -> bool:
        return self.state == "accepted" or (self.exported and self.state in ("waiting", "set_aside"))


class SpoolModel(RuleBasedStateMachine):
    """Every rule does the same to the spool and to the model; the invariants compare all that can be seen."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.spool = open_spool(self.folder / "spool.db", self.clock)
        self.opened = 1
        self.boots = 1
        self.made = 0
        self.epochs: dict[str, list[int]] = {}  # every number ever appended, by epoch; the seq is its place
        self.boot_of: dict[str, str] = {}
        self.sealed: dict[str, int] = {}
        self.forgotten: set[str] = set()
        self.batches: dict[int, ModelBatch] = {}
        self.notes: dict[bytes, int] = {}
        self.generation: str | None = None

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 5), name=st.sampled_from([b"", b"a.json", b"\xff"]), size=st.integers(0, 9))
    def append(self, count: int, name: bytes, size: int) -> None:
        numbers = list(range(self.made, self.made + count))
        self.made += count
        assert self.spool.append([sale(n) for n in numbers], [TakenFile(name, size)] if name else []) == count
        if name:
            self.notes[name] = size
        epoch = self.spool.state().epoch
        assert epoch
        if epoch not in self.epochs:
            assert self.clock.boot not in self.boot_of.values()
            self.epochs[epoch], self.sealed[epoch], self.boot_of[epoch] = [], 0, self.clock.boot
        assert self.boot_of[epoch] == self.clock.boot
        self.epochs[epoch] += numbers

    @rule(rows_max=st.integers(1, 4), bytes_max=st.sampled_from([1, 600, 1 << 20]), due=st.booleans())
    def seal(self, rows_max: int, bytes_max: int, due: bool) -> None:
        self.spool.seal(SealLimits(rows_max, bytes_max, 0.0 if due else FOREVER_S), BUILT_ON)
        self._learn_batches()
        for epoch, numbers in self.epochs.items():
            left = len(numbers) - self.sealed[epoch]
            if due or self.boot_of[epoch] != self.clock.boot:
                assert left == 0
            else:
                assert left < rows_max

    def _learn_batches(self) -> None:
        """Whatever is new must be the next runs, without holes, within the limits of a single pass."""
        rows = self.spool._connection.execute("select number, key, sha256, bytes from batches order by number")
        for row in rows.fetchall():
            if row["number"] in self.batches:
                continue
            batch = Batch(row["number"], BatchName.parse(row["key"]), row["sha256"], row["bytes"])
            name = batch.name
            assert name.first_seq == self.sealed[name.epoch] + 1
            self.sealed[name.epoch] = name.last_seq
            body = self.spool.body(batch)
            assert len(body) == batch.bytes
            self.batches[row["number"]] = ModelBatch(name.epoch, name.first_seq, name.last_seq, body)
            records = [from_line(line) for line in body.splitlines()]
            assert [record.seq for record in records] == list(range(name.first_seq, name.last_seq + 1))
            numbers = self.epochs[name.epoch][name.first_seq - 1 : name.last_seq]
            assert [record.payload for record in records] == [sale(n) for n in numbers]

    @precondition(lambda self: self.spool.next_waiting())
    @rule()
    def accept(self) -> None:
        batch = self.spool.next_waiting()
        assert batch
        self.spool.accept(batch, "bucket")
        self.batches[batch.number].state = "accepted"
        self.batches[batch.number].refusals = 0

    @precondition(lambda self: self.spool.next_waiting())
    @rule(reason=st.sampled_from(["by the bucket", "by the endpoint"]))
    def refuse(self, reason: str) -> None:
        batch = self.spool.next_waiting()
        assert batch
        model = self.batches[batch.number]
        model.refusals += 1
        assert self.spool.refuse(batch, reason, REFUSALS_MAX) == (model.refusals >= REFUSALS_MAX)
        if model.refusals >= REFUSALS_MAX:
            model.state = "set_aside"

    @rule()
    def a_day_passes(self) -> None:
        self.clock.pass_s(24 * 3600)
        expected = [model for model in self.batches.values() if model.state == "set_aside"]
        assert self.spool.retry_set_aside() == len(expected)
        for model in expected:
            model.state = "waiting"

    @rule(data=st.data())
    def settle_some(self, data: st.DataObject) -> None:
        awaited = self.spool.awaited(1000)
        chosen = [batch for batch in awaited if data.draw(st.booleans())]
        now = format_instant(self.clock.now())
        self.spool.settle(chosen, now)
        for batch in chosen:
            self.batches[batch.number].state, self.batches[batch.number].settled_at = "settled", now

    @rule(data=st.data())
    def export_some(self, data: st.DataObject) -> None:
        chosen = [batch for batch in self.spool.kept(settled=data.draw(st.booleans())) if data.draw(st.booleans())]
        self.spool.note_exported(chosen)
        for batch in chosen:
            self.batches[batch.number].exported = True

    @rule()
    def ask_for_the_first_again(self) -> None:
        awaited = self.spool.awaited(1)
        if awaited:
            model = self.batches[awaited[0].number]
            was_accepted = model.state == "accepted"
            assert self.spool.send_again(awaited[0], model.resend + 1) == was_accepted
            if was_accepted:
                model.state, model.resend = "waiting", model.resend + 1

    @rule(generation=st.sampled_from(["g-1", "g-2"]))
    def hear_of_a_generation(self, generation: str) -> None:
        again = [
            model
            for model in self.batches.values()
            if self.generation not in (None, generation) and model.state == "settled"
        ]
        assert self.spool.enter_generation(generation) == len(again)
        self.generation = generation
        for model in again:
            model.state = "accepted"

    @rule(age_s=st.sampled_from([0.0, 3600.0, 2 * 24 * 3600.0]))
    def forget(self, age_s: float) -> None:
        before = format_instant(self.clock.now() - timedelta(seconds=age_s))
        gone = {n: m for n, m in self.batches.items() if m.state == "settled" and m.settled_at < before}
        assert self.spool.forget(before) == sum(m.last - m.first + 1 for m in gone.values())
        for number in gone:
            del self.batches[number]
        newest = list(self.epochs)[-1:]
        for epoch in self.epochs:
            empty = self.sealed[epoch] == len(self.epochs[epoch])
            held = any(model.epoch == epoch for model in self.batches.values())
            if gone and empty and not held and [epoch] != newest and self.boot_of[epoch] != self.clock.boot:
                self.forgotten.add(epoch)

    @rule(name=st.sampled_from([b"a.json", b"\xff"]))
    def release(self, name: bytes) -> None:
        self.spool.release_files([name])
        self.notes.pop(name, None)

    @rule()
    def close_and_open(self) -> None:
        self.spool.close()
        self.opened += 1
        self.spool = open_spool(self.folder / "spool.db", self.clock, seed=self.opened)

    @rule()
    def reboot(self) -> None:
        self.boots += 1
        self.clock.reboot(f"boot-{self.boots}")
        self.close_and_open()

    @invariant()
    def the_spool_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "spool"):
            return
        rows = {"waiting": 0, "accepted": 0, "set_aside": 0, "settled": 0}
        for model in self.batches.values():
            rows[model.state] += model.last - model.first + 1
        state = self.spool.state()
        assert state.unsealed_rows == sum(len(n) - self.sealed[e] for e, n in self.epochs.items())
        assert rows == {
            "waiting": state.waiting_rows,
            "accepted": state.accepted_rows,
            "set_aside": state.set_aside_rows,
            "settled": state.settled_rows,
        }
        assert state.head == (len(list(self.epochs.values())[-1]) if self.epochs else 0)
        assert (state.oldest_unsettled_at is None) == (state.unsent_rows + state.accepted_rows == 0)

    @invariant()
    def the_quick_count_agrees_with_the_full_one(self) -> None:
        if not hasattr(self, "spool"):
            return
        state = self.spool.state()
        assert self.spool.backlog() == (state.unsent_rows, state.accepted_rows)

    @invariant()
    def every_batch_is_as_it_was_sealed(self) -> None:
        if not hasattr(self, "spool"):
            return
        rows = self.spool._connection.execute("select number, key, sha256, bytes, resend from batches").fetchall()
        assert {row["number"]: row["resend"] for row in rows} == {n: m.resend for n, m in self.batches.items()}
        for row in rows:
            batch = Batch(row["number"], BatchName.parse(row["key"]), row["sha256"], row["bytes"])
            assert self.spool.body(batch) == self.batches[row["number"]].body
        waiting = [number for number, model in self.batches.items() if model.state == "waiting"]
        following = self.spool.next_waiting()
        assert (following.number if following else None) == (min(waiting) if waiting else None)

    @invariant()
    def receipts_are_awaited_for_all_that_left(self) -> None:
        if not hasattr(self, "spool"):
            return
        expected = {number for number, model in self.batches.items() if model.is_awaited}
        awaited = self.spool.awaited(1000)
        assert {batch.number for batch in awaited} == expected
        assert all(batch.exported == self.batches[batch.number].exported for batch in awaited)
        kept = {number for number, model in self.batches.items() if model.state != "settled"}
        assert {batch.number for batch in self.spool.kept(settled=False)} == kept
        assert {batch.number for batch in self.spool.kept(settled=True)} == set(self.batches)

    @invariant()
    def epochs_are_reported_exactly(self) -> None:
        if not hasattr(self, "spool"):
            return
        expected = []
        for epoch, numbers in self.epochs.items():
            if epoch in self.forgotten:
                continue
            open_seqs = set(range(self.sealed[epoch] + 1, len(numbers) + 1))
            for model in self.batches.values():
                if model.epoch == epoch and model.state != "settled":
                    open_seqs |= set(range(model.first, model.last + 1))
            expected.append((epoch, len(numbers), _runs(open_seqs)))
        assert [(s.epoch, s.head, s.unsettled) for s in self.spool.epoch_states()] == expected

    @invariant()
    def only_what_is_settled_has_left(self) -> None:
        if not hasattr(self, "spool"):
            return
        held = self.spool._connection.execute("select line from records order by place").fetchall()
        expected = []
        for epoch, numbers in self.epochs.items():
            kept = set(range(self.sealed[epoch] + 1, len(numbers) + 1))
            for model in self.batches.values():
                if model.epoch == epoch:
                    kept |= set(range(model.first, model.last + 1))
            expected += [sale(numbers[seq - 1]) for seq in sorted(kept)]
        assert [from_line(row["line"].encode()).payload for row in held] == expected

    @invariant()
    def notes_are_kept(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert {name: self.spool.bytes_taken(name) for name in self.spool.taken_files()} == self.notes


def _runs(seqs: set[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return tuple(runs)


SpoolModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestSpoolModel = SpoolModel.TestCase
