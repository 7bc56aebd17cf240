"""No power cut loses or doubles a sale that was promised, on storage that honours flush."""

import os
import random
import time
from pathlib import Path

import pytest
from agent_kit import a_server
from feeders import AddFeeder, Feeder, FolderFeeder, LocalHttpFeeder, TailFeeder
from power_run import Damaged, Outcome, Run

pytestmark = [pytest.mark.power, pytest.mark.root, pytest.mark.timeout(900)]

CUTS = int(os.environ.get("SCOUT_TEST_CUTS", "100"))
SEED = int(os.environ.get("SCOUT_TEST_SEED") or random.SystemRandom().getrandbits(32))
CONTROL_CUTS = 8


def _feeders(run: Run) -> list[Feeder]:
    """Every source that the agent has. A new one is a class in feeders.py and a line here."""
    return [
        FolderFeeder(run.card.path),
        TailFeeder(run.card.path),
        LocalHttpFeeder(),
        AddFeeder(run.config, run.variables),
    ]


def _cut_again_and_again(home: Path, cuts: int, seed: int, synchronous: str | None = None) -> Outcome:
    with a_server() as server:
        run = Run(home, server, seed=seed, synchronous=synchronous)
        feeders = _feeders(run)
        run.configure(feeders)
        try:
            for _ in range(cuts):
                run.live(feeders)
        except Damaged:
            if not synchronous:
                raise
        try:
            return run.outcome()
        finally:
            run.card.throw_away()


def _tell(capsys: pytest.CaptureFixture[str], what: str, outcome: Outcome, took_s: float) -> None:
    sources = [
        f"{name} {len(numbers):,} ({len(numbers & outcome.lost):,} lost)" for name, numbers in outcome.by_source.items()
    ]
    with capsys.disabled():
        print(f"\n{what}: SCOUT_TEST_SEED={SEED} replays it")
        print(f"  {outcome.cuts} cuts in {took_s:.0f} s; promised by {', '.join(sources)}; {len(outcome.twice)} twice")
        print(
            f"  {outcome.epochs} epochs, {len(outcome.holes)} with holes; {len(outcome.forks)} forks; "
            + (outcome.trouble.strip().splitlines() or ["all arrived"])[-1]
        )


def test_no_cut_loses_or_doubles_what_was_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred cuts under load, some while it starts, most without a server; then everything is counted."""
    before_s = time.monotonic()
    outcome = _cut_again_and_again(tmp_path, CUTS, SEED)
    _tell(capsys, "power cuts", outcome, time.monotonic() - before_s)

    assert outcome.cuts == CUTS > 0
    assert all(outcome.by_source.get(name) for name in ("folder", "tail", "local_http", "add"))
    assert outcome.epochs > CUTS // 3
    assert (outcome.trouble, outcome.lost, outcome.twice) == ("", set(), set())
    assert (outcome.holes, outcome.forks) == ([], [])


@pytest.mark.parametrize("synchronous", ["normal", "off"])
def test_the_same_run_sees_the_loss_where_the_spool_does_not_flush(
    synchronous: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the run above would see nothing."""
    before_s = time.monotonic()
    outcome = _cut_again_and_again(tmp_path, CONTROL_CUTS, SEED, synchronous)
    _tell(capsys, f"control, synchronous={synchronous}", outcome, time.monotonic() - before_s)

    assert outcome.promised
    assert outcome.lost
