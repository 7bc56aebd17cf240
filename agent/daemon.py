"""The daemon: joins the parts and runs the two loops, intake and delivery, which meet only in the spool.

May be relied on
- Intake never waits for delivery: each loop has its thread and its own connection to the spool.
- Events (a file closed) only wake a loop; a whole step stands in a source's `step` and in `Delivery.step`,
  and looks for itself.
- A fault of this machine or of the network ends no loop: the step is tried again. Faults are logged by the
  loops, and nowhere below.
- Whatever hangs on the config is built by one function from it; another config builds it anew between two steps.
- SIGTERM ends both loops between two commits; what was being sent is sent again under the same name.
- A loop that dies ends the daemon with an error; one that hangs is shown and left to systemd's watchdog.
- When the spool turns out to be damaged, the process begins anew: then nothing has its files open, and they are
  moved aside as at any start.
"""

import faulthandler
import os
import random
import signal
import sys
import threading
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import structlog

from agent import VERSION
from agent import config as configuration
from agent.board import Board, DaemonFacts
from agent.clock import Clock, SystemClock
from agent.config import Config, runtime_directory
from agent.damage import mark
from agent.delivery import Delivery
from agent.errors import LocalFault, SpoolMalformed
from agent.intake_loop import Intake, sources_of
from agent.lock import only_daemon
from agent.logs import set_up_logs
from agent.loop import Loop
from agent.nudge import Nudges
from agent.orders import KINDS, Orders
from agent.progress import Progress
from agent.published import Publisher
from agent.reload import LiveConfig, Renewed
from agent.space import Shortage, SpaceLimits, limits_of, space_of
from agent.spool import Spool
from agent.status import look, places_of
from agent.supervision import HEEDED, backlog_in_words, supervise
from agent.systemd import Manager
from agent.transport import client_of
from agent.upkeep import Upkeep, begin
from agent.verdict import Status
from wire.record import format_instant

STOP_WITHIN_S = 5.0
SLACK_S = 120.0
"""What a step may take beside the network: a name looked up, a card that takes its time, other writers."""

READ_BYTES_PER_S = 1_000_000
"""A device takes sales in at least so fast."""

log = structlog.get_logger()


def main(config_file: Path | None) -> None:
    """Run as a program: logs to stderr, and the stacks too when the process is killed by its own fault."""
    faulthandler.enable()
    set_up_logs(sys.stderr)
    run(config_file or configuration.default_path(), clock=SystemClock(), rng=random.SystemRandom())


def run(config_file: Path, *, clock: Clock, rng: random.Random) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the config anew. Raises ScoutAgentError when it can't start."""
    config = configuration.load(config_file)
    try:
        _run(config_file, config, clock=clock, rng=rng)
    except SpoolMalformed as fault:
        log.error("spool_malformed", reason=str(fault))  # noqa: TRY400  (no traceback: expected)
        try:
            mark(config.spool_file, str(fault), clock)
        except OSError as error:
            raise LocalFault(f"{config.spool_file.parent}: {error.strerror}. Start the agent again.") from error
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  (this very program)


def _run(config_file: Path, config: Config, *, clock: Clock, rng: random.Random) -> None:
    faults: list[BaseException] = []
    failing = threading.Lock()
    main_thread = threading.main_thread().ident or 0

    def failed(error: BaseException) -> None:
        with failing:  # a second signal would stay pending, and end the process that begins anew
            faults.append(error)
            if len(faults) == 1:
                signal.pthread_kill(main_thread, signal.SIGTERM)

    with ExitStack() as opened:
        opened.enter_context(closing(only_daemon(config.spool_file.parent)))
        # Blocked before the threads start, so that only `supervise` receives them, at hardly a wake-up while idle.
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        progress = Progress(_limits_s(config), clock)
        intake_wake, delivery_wake, status_wake = threading.Event(), threading.Event(), threading.Event()
        facts = DaemonFacts(pid=os.getpid(), version=VERSION, started_at=format_instant(clock.now()))
        board = Board(facts, lambda _changed: status_wake.set())
        live = LiveConfig(config_file, config, board, changed=intake_wake.set)
        space = space_of(config, partial(_tell_space, board))
        checked = begin(config, clock=clock, rng=rng, space=space)
        # Not closed: a loop that hangs may be using one when the process ends, and nothing committed hangs on it.
        intake_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space)
        delivery_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space)
        supervised_spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)

        def build_intake(config: Config) -> Intake:
            progress.limit("intake", _limits_s(config))
            space.limits = _space_limits(config)
            sources = sources_of(config, intake_spool, space, intake_wake.set, board.counters, clock=clock, rng=rng)
            return Intake(sources, board, clock)

        def build_delivery(config: Config) -> Delivery:
            progress.limit("delivery", _limits_s(config))
            return Delivery(
                config,
                delivery_spool,
                client_of(config),
                board,
                clock=clock,
                rng=rng,
                moved=lambda _bytes: progress.mark("delivery"),
            )

        # One loop looks at the file for both; the other is woken when there is something new.
        delivery = opened.enter_context(closing(Renewed(live, live.look, build_delivery)))
        intake = opened.enter_context(closing(Renewed(live, lambda: live.current, build_intake)))
        publisher = _publisher(live, board, clock)
        loops = [
            Loop("intake", intake.step, failed, progress, board.counters, intake_wake),
            Loop("delivery", delivery.step, failed, progress, board.counters, delivery_wake),
            Loop("status", publisher.step, _status_failed, progress, board.counters, status_wake),
        ]
        for loop in loops:
            loop.start()
        stop_upkeep = threading.Event()
        opened.callback(stop_upkeep.set)
        upkeep = Upkeep(config, checked=checked, clock=clock, rng=rng, space=space, failed=failed)
        threading.Thread(target=upkeep.run, args=(stop_upkeep,), name="upkeep", daemon=True).start()
        nudged = {config_file.absolute(), *(Orders(config.spool_file.parent).folder / kind for kind in KINDS)}
        nudges = opened.enter_context(closing(Nudges(nudged, delivery_wake.set)))
        nudges.start()
        log.info("agent_started", device=config.device.id, version=VERSION, pid=os.getpid())

        def look_again() -> None:
            live.ask()
            delivery_wake.set()

        supervise(
            Manager(os.environ),
            progress,
            words=lambda: backlog_in_words(supervised_spool),
            look_again=look_again,
            stacks_to=sys.stderr,
        )
        for loop in loops:
            loop.stop()
        for loop in loops:
            loop.join(STOP_WITHIN_S / len(loops))
        log.info("agent_stopped", device=config.device.id)
    if faults:
        raise faults[0]


def _space_limits(config: Config) -> SpaceLimits:
    try:
        return limits_of(config)
    except OSError as error:
        raise LocalFault(f"{config.spool_file.parent}: {error.strerror}. It is tried again.") from error


def _limits_s(config: Config) -> dict[str, float]:
    """How long one piece of work of each loop may take without a sign: longer than the slowest good one."""
    upload = config.upload
    return {
        "intake": SLACK_S + config.folder.file_bytes_max / READ_BYTES_PER_S,
        "delivery": SLACK_S + upload.connect_timeout_s + 2 * upload.stall_timeout_s,
        "status": float("inf"),  # it only shows: no reason to end what takes and delivers
    }


def _tell_space(board: Board, shortage: Shortage, why: str) -> None:
    """Say what the want of room costs, once each time that this changes."""
    board.note(
        kept_shortened=shortage is not Shortage.NONE,
        intake_refused=why if shortage is Shortage.REFUSING else None,
    )
    match shortage:
        case Shortage.FORGETTING:
            log.warning("settled_forgotten_early", reason=why)
        case Shortage.REFUSING:
            log.error("intake_refused", reason=why)
        case Shortage.NONE:
            log.info("space_ample")


def _publisher(live: LiveConfig, board: Board, clock: Clock) -> Publisher:
    """What tells everybody on this machine how the daemon is doing."""
    config = live.current

    def look_now() -> Status:
        places = places_of(live.current)  # a reload may have moved the token or a till's folder
        return look(places, running=True, daemon=board.facts, published=None, clock=clock, version=VERSION)

    spool, journal = config.spool_file, config.spool_file.with_name(config.spool_file.name + "-wal")
    return Publisher(
        config.status_file,
        look_now,
        lambda: board.facts,
        (spool, journal, config.token_file),
        in_memory=runtime_directory() is not None,
        clock=clock,
    )


def _status_failed(error: BaseException) -> None:
    """A defect in what only shows must not end what takes and delivers."""
    log.error("status_stopped", error=type(error).__name__)
