"""The daemon: joins the parts and runs the two loops, intake and delivery, which meet only in the spool.

May be relied on
- Intake never waits for delivery: each loop has its thread and its own connection to the spool.
- Events (a file closed) only wake a loop; a whole step stands in a source's `step` and in `Delivery.step`,
  and looks for itself.
- A fault of this machine or of the network ends no loop, and a source in trouble holds up no other: the step
  is tried again. Faults are logged here and in the delivery loop, and nowhere below.
- SIGTERM ends both loops between two commits; what was being sent is sent again under the same name.
- A loop that dies ends the daemon with an error; one that hangs is shown and left to systemd's watchdog.
"""

import faulthandler
import fcntl
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import httpx
import msgspec
import structlog

from agent import VERSION
from agent.board import Board, DaemonFacts
from agent.clock import Clock, SystemClock
from agent.config import Config, default_path, load
from agent.delivery import Delivery
from agent.errors import LocalFault
from agent.files import write_safely
from agent.intake import Source
from agent.logs import set_up_logs
from agent.progress import Progress
from agent.sources.folder import FolderSource
from agent.spool import Spool
from agent.supervision import HEEDED, backlog_in_words, supervise
from agent.systemd import Manager
from wire.record import format_instant

LOCAL_FAULT_PAUSE_S = 5.0
STOP_WITHIN_S = 5.0
SLACK_S = 120.0
"""What a step may take beside the network: a name looked up, a card that takes its time, other writers."""

READ_BYTES_PER_S = 1_000_000
"""A device takes sales in at least so fast."""

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
        except (LocalFault, sqlite3.OperationalError) as fault:
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
    progress: Progress

    def run(self) -> None:
        while not self.stop.is_set():
            self.wake.clear()
            self.progress.mark(self.name)
            try:
                wait_s = self.step()
            except (LocalFault, sqlite3.OperationalError) as fault:
                log.error("local_fault", loop=self.name, reason=str(fault))  # noqa: TRY400  (no traceback: expected)
                wait_s = LOCAL_FAULT_PAUSE_S
            except BaseException as error:  # noqa: BLE001  (handed to the main thread, which ends the daemon)
                self.failed(error)
                return
            if wait_s > 0.0:
                self.progress.mark(self.name, quiet_for_s=wait_s)
                self.wake.wait(wait_s)


def main(config: Path | None) -> None:
    """Run as a program: logs to stderr, and the stacks too when the process is killed by its own fault."""
    faulthandler.enable()
    set_up_logs(sys.stderr)
    run(load(config or default_path()), clock=SystemClock(), rng=random.SystemRandom())


def run(config: Config, *, clock: Clock, rng: random.Random) -> None:
    """Run until SIGTERM or SIGINT. Raises ScoutAgentError when the daemon can't start."""
    lock = _only_daemon(config.spool_file.parent)
    stop, wakes = threading.Event(), (threading.Event(), threading.Event())
    faults: list[BaseException] = []

    main_thread = threading.main_thread().ident or 0

    def failed(error: BaseException) -> None:
        faults.append(error)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    def wake_all() -> None:
        for wake in wakes:
            wake.set()

    # Blocked before the threads start, so that only `supervise` below receives them, at hardly a wake-up while idle.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    manager, progress = Manager(os.environ), Progress(_limits_s(config), clock)
    intake_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    delivery_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    supervised_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    intake = Intake(_sources(config, intake_spool, wakes[0].set, clock=clock, rng=rng))
    client = httpx.Client(
        timeout=httpx.Timeout(config.upload.stall_timeout_s, connect=config.upload.connect_timeout_s),
        headers={"User-Agent": f"scout-agent/{VERSION}"},
        event_hooks={"request": [lambda _request: progress.mark("delivery")]},
    )
    facts = DaemonFacts(pid=os.getpid(), version=VERSION, started_at=format_instant(clock.now()))
    board = Board(facts, lambda changed: _publish(config.status_file, changed))
    try:
        intake.start()
        delivery = Delivery(config, delivery_spool, client, board, clock=clock, rng=rng)
        loops = [
            _Loop("intake", intake.step, wakes[0], stop, failed, progress),
            _Loop("delivery", delivery.step, wakes[1], stop, failed, progress),
        ]
        threads = [threading.Thread(target=loop.run, name=loop.name, daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        log.info("agent_started", device=config.device.id, version=VERSION, pid=os.getpid())
        supervise(
            manager,
            progress,
            words=lambda: backlog_in_words(supervised_spool),
            look_again=wake_all,
            stacks_to=sys.stderr,
        )
        stop.set()
        wake_all()
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


def _limits_s(config: Config) -> dict[str, float]:
    """How long one piece of work of each loop may take without a sign: longer than the slowest good one."""
    upload = config.upload
    return {
        "intake": SLACK_S + config.folder.file_bytes_max / READ_BYTES_PER_S,
        "delivery": SLACK_S + upload.connect_timeout_s + 2 * upload.stall_timeout_s,
    }


def _publish(path: Path, facts: DaemonFacts) -> None:
    """Tell `status` what only the daemon knows. Losing it loses nothing."""
    try:
        write_safely(os.fsencode(path), msgspec.json.encode(facts), mode=0o644)
    except OSError as error:
        log.warning("status_not_written", file=str(path), error=error.strerror)


def _only_daemon(folder: Path) -> TextIO:
    """Hold the spool's lock: two daemons on one spool would send everything twice."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = (folder / "daemon.lock").open("a+")
    except OSError as error:
        raise LocalFault(f"{folder}: {error.strerror}. The agent's user must be able to write there.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LocalFault(f"{folder}: another scout-agent runs on this spool. Stop it first.") from None
    return lock
