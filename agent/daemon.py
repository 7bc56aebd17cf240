"""The daemon: joins the parts and runs the two loops, intake and delivery, which meet only in the spool.

May be relied on
- Intake never waits for delivery: each loop has its thread and its own connection to the spool.
- Events (a file closed) only wake a loop; a whole step stands in a source's `step` and in `Delivery.step`,
  and looks for itself.
- A fault of this machine or of the network ends no loop, and a source in trouble holds up no other: the step
  is tried again. Faults are logged here and in the delivery loop, and nowhere below.
- SIGTERM ends both loops between two commits; what was being sent is sent again under the same name.
"""

import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import msgspec
import structlog

from agent import VERSION, daemon_lock
from agent.board import Board, DaemonFacts
from agent.clock import Clock
from agent.config import Config
from agent.damage import in_words, mark, proves_damage
from agent.delivery import Delivery
from agent.errors import LocalFault, SpoolFull, SpoolMalformed
from agent.files import write_safely
from agent.intake import Source
from agent.sources.folder import FolderSource
from agent.space import Shortage, space_of
from agent.spool import Spool
from agent.upkeep import Upkeep, begin
from wire.record import format_instant

LOCAL_FAULT_PAUSE_S = 5.0
STOP_WITHIN_S = 5.0
_ENDING = {signal.SIGTERM, signal.SIGINT}

log = structlog.get_logger()


class Intake:
    """The intake loop: every source in turn, on one connection to the spool."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def start(self) -> None:
        """Let every source listen. Raises LocalFault with what to mend."""
        for source in self._sources:
            source.start()

    def close(self) -> None:
        """Stop listening."""
        for source in self._sources:
            source.close()

    def step(self) -> float:
        """Take what is ready anywhere; return in how many seconds to look again."""
        return min(self._step_of(source) for source in self._sources)

    def _step_of(self, source: Source) -> float:
        try:
            return source.step()
        except SpoolFull:
            return LOCAL_FAULT_PAUSE_S  # told by Space, once
        except (LocalFault, sqlite3.OperationalError) as fault:
            if proves_damage(fault):
                raise
            log.error("local_fault", loop="intake", reason=str(fault))  # noqa: TRY400  (no traceback: expected)
            return LOCAL_FAULT_PAUSE_S


@dataclass
class _Loop:
    """A thread that repeats a step, and the event that wakes it."""

    name: str
    step: Callable[[], float]
    wake: threading.Event
    stop: threading.Event
    failed: Callable[[BaseException], None]

    def run(self) -> None:
        while not self.stop.is_set():
            self.wake.clear()
            try:
                wait_s = self.step()
            except BaseException as error:  # noqa: BLE001  (what is no local fault goes to the main thread)
                if proves_damage(error) or not isinstance(error, (LocalFault, OSError, sqlite3.OperationalError)):
                    self.failed(SpoolMalformed(in_words(error)) if proves_damage(error) else error)
                    return
                log.error("local_fault", loop=self.name, reason=str(error))  # noqa: TRY400  (no traceback: expected)
                wait_s = LOCAL_FAULT_PAUSE_S
            if wait_s > 0.0:
                self.wake.wait(wait_s)


def run(config: Config, *, clock: Clock, rng: random.Random) -> None:
    """Run until SIGTERM or SIGINT. Raises ScoutAgentError when the daemon can't start.

    When the spool turns out to be damaged, the process begins anew: then nothing has its files open, and they are
    moved aside as at any start.
    """
    try:
        _run(config, clock=clock, rng=rng)
    except SpoolMalformed as fault:
        log.error("spool_malformed", reason=str(fault))  # noqa: TRY400  (no traceback: expected)
        try:
            mark(config.spool_file, str(fault), clock)
        except OSError as error:
            raise LocalFault(f"{config.spool_file.parent}: {error.strerror}. Start the agent again.") from error
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  (this very program)


def _run(config: Config, *, clock: Clock, rng: random.Random) -> None:
    lock = daemon_lock.hold(config.spool_file.parent)
    stop, wakes = threading.Event(), (threading.Event(), threading.Event())
    faults: list[BaseException] = []
    failing = threading.Lock()
    main_thread = threading.main_thread().ident or 0

    def failed(error: BaseException) -> None:
        with failing:  # a second signal would stay pending, and end the process that begins anew
            faults.append(error)
            if len(faults) == 1:
                signal.pthread_kill(main_thread, signal.SIGTERM)

    # Blocked before the threads start, so that only `sigwait` below receives them, at no wake-up while idle.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    facts = DaemonFacts(pid=os.getpid(), version=VERSION, started_at=format_instant(clock.now()))
    board = Board(facts, lambda changed: _publish(config.status_file, changed))
    space = space_of(config, partial(_tell_space, board))
    checked = begin(config, clock=clock, rng=rng, space=space)
    intake_spool, delivery_spool = (
        Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space) for _ in range(2)
    )
    intake = Intake(_sources(config, intake_spool, wakes[0].set, clock=clock, rng=rng))
    client = httpx.Client(
        timeout=httpx.Timeout(config.upload.stall_timeout_s, connect=config.upload.connect_timeout_s),
        headers={"User-Agent": f"scout-agent/{VERSION}"},
    )
    try:
        intake.start()
        delivery = Delivery(config, delivery_spool, client, board, clock=clock, rng=rng)
        loops = [
            _Loop("intake", intake.step, wakes[0], stop, failed),
            _Loop("delivery", delivery.step, wakes[1], stop, failed),
        ]
        threads = [threading.Thread(target=loop.run, name=loop.name, daemon=True) for loop in loops]
        upkeep = Upkeep(config, checked=checked, clock=clock, rng=rng, space=space, failed=failed)
        threads.append(threading.Thread(target=upkeep.run, args=(stop,), name="upkeep", daemon=True))
        for thread in threads:
            thread.start()
        log.info("agent_started", device=config.device.id, version=VERSION, pid=os.getpid())
        signal.sigwait(_ENDING)
        stop.set()
        for wake in wakes:
            wake.set()
        for thread in threads:
            thread.join(STOP_WITHIN_S / len(threads))
        log.info("agent_stopped", device=config.device.id)
    finally:
        intake.close()
        client.close()
        lock.close()
    if faults:
        raise faults[0]


def _sources(
    config: Config, spool: Spool, wake: Callable[[], None], *, clock: Clock, rng: random.Random
) -> list[Source]:
    """Every source that the config asks for."""
    return [
        FolderSource(
            Path(config.folder.path),
            spool,
            settle_s=config.folder.settle_s,
            file_bytes_max=config.folder.file_bytes_max,
            wake=wake,
            clock=clock,
            rng=rng,
        )
    ]


def _tell_space(board: Board, shortage: Shortage, why: str) -> None:
    """Say what the want of room costs, once each time that this changes."""
    match shortage:
        case Shortage.FORGETTING:
            board.note(space_short=f"receipted sales are forgotten before spool.keep_for_days: {why}")
            log.warning("settled_forgotten_early", reason=why)
        case Shortage.REFUSING:
            board.note(space_short=f"no more sales are taken in: {why}")
            log.error("intake_refused", reason=why)
        case Shortage.NONE:
            board.note(space_short=None)
            log.info("space_ample")


def _publish(path: Path, facts: DaemonFacts) -> None:
    """Tell `status` what only the daemon knows. Losing it loses nothing."""
    try:
        write_safely(os.fsencode(path), msgspec.json.encode(facts), mode=0o644)
    except OSError as error:
        log.warning("status_not_written", file=str(path), error=error.strerror)
