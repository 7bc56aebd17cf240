"""The intake loop: sources that are in trouble, and those beside them."""

import sqlite3
from collections.abc import Callable

import pytest
from fakes import FakeClock
from structlog.testing import capture_logs

from agent.board import Board, DaemonFacts
from agent.errors import LocalFault
from agent.intake_loop import Intake
from agent.loop import LOCAL_FAULT_PAUSE_S


class Scripted:
    """A source that does what the test says and counts its calls."""

    def __init__(self, wait_s: float = 60.0) -> None:
        self.wait_s = wait_s
        self.start_fault: Exception | None = None
        self.step_fault: Exception | None = None
        self.calls: list[str] = []

    def start(self) -> None:
        """Start, or fail."""
        self.calls.append("start")
        if self.start_fault:
            raise self.start_fault

    def step(self) -> float:
        """Take a step, or fail."""
        self.calls.append("step")
        if self.step_fault:
            raise self.step_fault
        return self.wait_s

    def close(self) -> None:
        """Close."""
        self.calls.append("close")


@pytest.fixture
def board() -> Board:
    """Return what the daemon tells `status`."""
    return Board(DaemonFacts(pid=1, version="0", started_at="2027-03-01T02:30:00.000Z"))


FaultMaker = Callable[[str], Exception]


@pytest.mark.parametrize("fault", [LocalFault, sqlite3.OperationalError])
@pytest.mark.parametrize("at", ["start_fault", "step_fault"])
def test_a_source_in_trouble_waits_while_the_others_go_on(
    board: Board, clock: FakeClock, fault: FaultMaker, at: str
) -> None:
    """However often they wake the loop. The log says it once, the board until it is over, and then it goes on."""
    ill, well = Scripted(), Scripted(wait_s=0.0)
    setattr(ill, at, fault("the folder is not there"))
    intake = Intake({"ill": ill, "well": well}, board, clock)
    with capture_logs() as logs:
        for _ in range(100):
            assert intake.step() == 0.0
        tries = len(ill.calls)
        clock.pass_s(LOCAL_FAULT_PAUSE_S)
        intake.step()
        assert len(ill.calls) > tries
    assert board.facts.source_faults == (("ill", "the folder is not there"),)
    assert tries <= 2
    assert well.calls.count("step") == 101
    assert [log["event"] for log in logs] == ["local_fault"]
    with capture_logs() as logs:
        setattr(ill, at, None)
        clock.pass_s(LOCAL_FAULT_PAUSE_S)
        intake.step()

    assert board.facts.source_faults == ()
    assert [log["event"] for log in logs] == ["local_fault_over"]
    assert ill.calls[-1] == "step"
    assert ill.calls.count("start") == (3 if at == "start_fault" else 1)


def test_the_loop_looks_again_when_the_first_source_wants_to(board: Board, clock: FakeClock) -> None:
    """A source in trouble counts with its pause."""
    sources = [Scripted(wait_s=40.0), Scripted(wait_s=30.0)]
    intake = Intake(dict(zip("ab", sources, strict=True)), board, clock)
    assert intake.step() == 30.0
    sources[0].step_fault = LocalFault("the disk is full")
    assert intake.step() == LOCAL_FAULT_PAUSE_S
    clock.pass_s(1.0)
    assert intake.step() == LOCAL_FAULT_PAUSE_S - 1.0
    intake.close()

    assert [source.calls[-1] for source in sources] == ["close", "close"]


def test_what_is_no_fault_of_this_machine_ends_the_loop(board: Board, clock: FakeClock) -> None:
    """A mistake of ours must be seen, not repeated for ever."""
    source = Scripted()
    source.step_fault = ValueError("a mistake")
    with pytest.raises(ValueError, match="a mistake"):
        Intake({"a": source}, board, clock).step()
