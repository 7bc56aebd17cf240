"""The daemon: joins the parts and runs the two loops, intake and delivery, which meet only in the spool.

May be relied on
- Intake never waits for delivery: each loop has its thread and its own connection to the spool.
- Events (a file closed) only wake a loop; a whole step stands in a source's `step` and in `Delivery.step`,
  and looks for itself.
- A fault of this machine or of the network ends no loop, and a source in trouble holds up no other: the step
  is tried again. Faults are logged here and in the delivery loop, and nowhere below.
- Whatever hangs on the config is built by one function from it; another config builds it anew between two steps.
- SIGTERM ends both loops between two commits; what was being sent is sent again under the same name.
"""

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from agent import VERSION
from agent import config as configuration
from agent.board import Board, DaemonFacts
from agent.clock import Clock
from agent.config import Config
from agent.counters import FAULTS, RECORDS_REFUSED, RECORDS_TAKEN, Counters
from agent.delivery import Delivery
from agent.errors import LocalFault
from agent.files import write_safely
from agent.intake import Source, Tally
from agent.lock import only_daemon
from agent.metrics import Metrics
from agent.nudge import Nudges
from agent.orders import KINDS, Orders
from agent.reload import LiveConfig, Renewed
from agent.sources.folder import FolderSource
from agent.sources.local_http import LocalHttpSource
from agent.spool import Spool
from agent.transport import client_of
from wire.record import format_instant

LOCAL_FAULT_PAUSE_S = 5.0
STOP_WITHIN_S = 5.0
_ENDING = {signal.SIGTERM, signal.SIGINT}

log = structlog.get_logger()


class Intake:
    """The intake loop: every source in turn, on one connection to the spool."""

    def __init__(self, sources: Sequence[Source], counters: Counters) -> None:
        self._sources = sources
        self._counters = counters

    def start(self) -> None:
        """Let every source listen, or none. Raises LocalFault with what to mend."""
        try:
            for source in self._sources:
                source.start()
        except BaseException:
            self.close()
            raise

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
            self._counters.add(FAULTS, kind="local")
            return LOCAL_FAULT_PAUSE_S


@dataclass
class _Loop:
    """A thread that repeats a step, and the event that wakes it."""

    name: str
    step: Callable[[], float]
    wake: threading.Event
    stop: threading.Event
    failed: Callable[[BaseException], None]
    counters: Counters

    def run(self) -> None:
        while not self.stop.is_set():
            self.wake.clear()
            try:
                wait_s = self.step()
            except (LocalFault, sqlite3.OperationalError) as fault:
                log.error("local_fault", loop=self.name, reason=str(fault))  # noqa: TRY400  (no traceback: expected)
                self.counters.add(FAULTS, kind="local")
                wait_s = LOCAL_FAULT_PAUSE_S
            except BaseException as error:  # noqa: BLE001  (handed to the main thread, which ends the daemon)
                self.failed(error)
                return
            if wait_s > 0.0:
                self.wake.wait(wait_s)


def run(config_file: Path, *, clock: Clock, rng: random.Random) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the config anew. Raises ScoutAgentError when it can't start."""
    config = configuration.load(config_file)
    lock = only_daemon(config.spool_file.parent)
    stop, wakes = threading.Event(), (threading.Event(), threading.Event())
    faults: list[BaseException] = []

    main_thread = threading.main_thread().ident or 0

    def failed(error: BaseException) -> None:
        faults.append(error)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    # Blocked before the threads start, so that only `sigwait` below receives them, at no wake-up while idle.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING | {signal.SIGHUP})
    intake_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    delivery_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    facts = DaemonFacts(pid=os.getpid(), version=VERSION, started_at=format_instant(clock.now()))
    board = Board(facts, lambda changed: _publish(config.status_file, changed))
    live = LiveConfig(config_file, config, board, changed=wakes[0].set)

    def build_intake(config: Config) -> Intake:
        sources = _sources(config, intake_spool, wakes[0].set, board.counters, clock=clock, rng=rng)
        intake = Intake(sources, board.counters)
        intake.start()
        return intake

    def build_delivery(config: Config) -> Delivery:
        return Delivery(config, delivery_spool, client_of(config), board, clock=clock, rng=rng)

    with ExitStack() as opened:
        opened.callback(lock.close)
        # One loop looks at the file for both; the other is woken when there is something new.
        delivery = opened.enter_context(closing(Renewed(live, live.look, build_delivery)))
        intake = opened.enter_context(closing(Renewed(live, lambda: live.current, build_intake)))
        nudged = {config_file.absolute(), *(Orders(config.spool_file.parent).folder / kind for kind in KINDS)}
        nudges = opened.enter_context(closing(Nudges(nudged, wakes[1].set)))
        loops = [
            _Loop("intake", intake.step, wakes[0], stop, failed, board.counters),
            _Loop("delivery", delivery.step, wakes[1], stop, failed, board.counters),
        ]
        threads = [threading.Thread(target=loop.run, name=loop.name, daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        nudges.start()
        log.info("agent_started", device=config.device.id, version=VERSION, pid=os.getpid())
        while signal.sigwait(_ENDING | {signal.SIGHUP}) == signal.SIGHUP:
            live.ask()
            wakes[1].set()
        stop.set()
        for wake in wakes:
            wake.set()
        for thread in threads:
            thread.join(STOP_WITHIN_S / len(threads))
        log.info("agent_stopped", device=config.device.id)
    if faults:
        raise faults[0]


def _sources(
    config: Config, spool: Spool, wake: Callable[[], None], counters: Counters, *, clock: Clock, rng: random.Random
) -> list[Source]:
    """Every source that the config asks for."""
    sources: list[Source] = [
        FolderSource(
            Path(config.folder.path),
            spool,
            settle_s=config.folder.settle_s,
            file_bytes_max=config.folder.file_bytes_max,
            wake=wake,
            clock=clock,
            rng=rng,
            tally=_tally(counters, "folder"),
        )
    ]
    if config.local_http.is_on:
        sources.append(
            LocalHttpSource(
                config.local_http,
                Spool(config.spool_file, config.device.id, clock=clock, rng=rng),  # of its committing thread
                Metrics(config, counters, clock).exposition,
                counters=counters,
                wake=wake,
                clock=clock,
                tally=_tally(counters, "local_http"),
            )
        )
    return sources


def _tally(counters: Counters, source: str) -> Tally:
    def tally(taken: int, refused: int) -> None:
        counters.add(RECORDS_TAKEN, taken, source=source)
        counters.add(RECORDS_REFUSED, refused, source=source)

    return tally


def _publish(path: Path, facts: DaemonFacts) -> None:
    """Tell `status` what only the daemon knows. Losing it loses nothing."""
    try:
        write_safely(os.fsencode(path), msgspec.json.encode(facts), mode=0o644)
    except OSError as error:
        log.warning("status_not_written", file=str(path), error=error.strerror)
