"""The tail source against a model till: it appends in pieces and rotates, and the agent dies between any two steps."""

# ruff: noqa: D102  (rules and invariants are named by what they do and state)

import shutil
import tempfile
from pathlib import Path

from agent_kit import open_spool, sale
from fakes import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tail_kit import a_tail, append, catch_up, rejected, settle, stored


class Till:
    """One file that a till appends to, and every line that it ever completed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending = b""  # what of a line isn't written yet
        self.completed: list[int] = []
        self.current: int | None = None


class TailModel(RuleBasedStateMachine):
    """Whatever is done to the files, each line that was completed is in the spool once, in its file's order."""

    @initialize(suffix=st.sampled_from([".jsonl", ".jsonl.1", ".bak"]))
    def begin(self, suffix: str) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "till"
        self.folder.mkdir()
        self.suffix = suffix
        self.clock = FakeClock()
        self.spool = open_spool(self.root / "spool.db", self.clock)
        self.source = a_tail(self.folder, self.spool, self.clock)
        self.tills = [Till(self.folder / f"{name}.jsonl") for name in ("sales", "other")]
        self.made = 0
        self.rotations = 0
        self.copying: tuple[Till, Path, int] | None = None

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        self.open_agent()
        for till in self.tills:
            self.write_rest(till)
        if self.copying:
            self.truncate()
        settle(self.source, self.clock)
        taken = stored(self.spool)
        expected = [till.completed for till in self.tills]
        of_till = {number: place for place, till in enumerate(self.tills) for number in till.completed}
        by_till: list[list[int]] = [[] for _ in self.tills]
        for number in taken:
            by_till[of_till[number]].append(number)
        assert by_till == expected
        assert rejected(self.folder) == {}
        self.source.close()
        self.spool.close()
        shutil.rmtree(self.root)

    def open_agent(self) -> None:
        self.source.close()
        self.source = a_tail(self.folder, self.spool, self.clock)

    def write_rest(self, till: Till) -> None:
        if till.pending:
            append(till.path, till.pending)
            till.pending = b""
            assert till.current is not None
            till.completed.append(till.current)

    @rule(place=st.integers(0, 1), count=st.integers(1, 3), filler=st.sampled_from([0, 0, 700, 5000]))
    def append_lines(self, place: int, count: int, filler: int) -> None:
        till = self.tills[place]
        self.write_rest(till)
        for number in range(self.made, self.made + count):
            append(till.path, sale(number, filler="x" * filler) + b"\n")
            till.completed.append(number)
        self.made += count

    @rule(place=st.integers(0, 1), cut=st.integers(1, 44))
    def append_a_piece(self, place: int, cut: int) -> None:
        till = self.tills[place]
        self.write_rest(till)
        line = sale(self.made) + b"\n"
        append(till.path, line[:cut])
        till.pending, till.current = line[cut:], self.made
        self.made += 1

    @rule(steps=st.integers(1, 3))
    def agent_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.pass_s(self.source.step() % 1.0)

    @rule()
    def agent_catches_up(self) -> None:
        catch_up(self.source, self.clock)

    @rule()
    def agent_is_killed(self) -> None:
        self.open_agent()

    @rule()
    def time_passes(self) -> None:
        self.clock.pass_s(1.5)

    @precondition(lambda self: self.copying is None)
    @rule(place=st.integers(0, 1))
    def rotate_by_rename(self, place: int) -> None:
        till = self.tills[place]
        if till.path.exists() and not till.pending:
            till.path.rename(self.new_name(till))

    def new_name(self, till: Till) -> Path:
        """A file that was never looked at under a till's name is nobody's under another one."""
        if self.suffix != ".jsonl":
            catch_up(self.source, self.clock)
        self.rotations += 1
        return till.path.with_name(f"{till.path.stem}-{self.rotations}{self.suffix}")

    @precondition(lambda self: self.copying is None)
    @rule(place=st.integers(0, 1), share=st.sampled_from([0.0, 0.5, 1.0]))
    def begin_to_copy(self, place: int, share: float) -> None:
        till = self.tills[place]
        if till.path.exists() and not till.pending:
            size = till.path.stat().st_size
            copy = self.new_name(till)
            begun = till.path.read_bytes()[: int(size * share)]
            copy.write_bytes(begun if b"\n" in begun else b"")  # nobody copies in smaller pieces
            self.copying = till, copy, size

    @precondition(lambda self: self.copying is not None)
    @rule()
    def end_the_copy(self) -> None:
        assert self.copying
        till, copy, size = self.copying
        copied = copy.stat().st_size
        if copied < size:
            append(copy, till.path.read_bytes()[copied:size])

    @precondition(lambda self: self.copying is not None)
    @rule(is_appended_meanwhile=st.booleans())
    def truncate(self, is_appended_meanwhile: bool = False) -> None:
        """What is appended between copy and truncation is in neither, unless the agent takes it in time."""
        assert self.copying
        till, _, _ = self.copying
        self.write_rest(till)
        self.end_the_copy()
        if is_appended_meanwhile or till.path.stat().st_size > self.copying[2]:
            catch_up(self.source, self.clock)
        with till.path.open("r+b") as file:
            file.truncate()
        self.copying = None

    @precondition(lambda self: self.rotations > 0 and self.copying is None)
    @rule()
    def delete_what_was_rotated_and_taken(self) -> None:
        catch_up(self.source, self.clock)
        for path in sorted(self.folder.iterdir())[:1]:
            if path not in [till.path for till in self.tills]:
                path.unlink()


TestTail = TailModel.TestCase
TestTail.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
