"""Upkeep of the spool: damage is found and moved aside at start, and salvaged beside intake and delivery.

May be relied on
- `begin` costs intake a few seconds at most, however large the spool: what of the check takes longer is done by
  `Upkeep`, in its own thread and on its own connections.
- Damage that shows while the agent runs is noted durably, and the agent begins anew: as at a start, the files are
  moved aside, and intake goes on in a new spool.
- Trouble with a salvage ends neither intake nor delivery: it is said, and tried again.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from agent import damage
from agent.clock import Clock
from agent.config import Config
from agent.errors import LocalFault, SpoolMalformed
from agent.salvage import Salvage, Stopped
from agent.space import Space

RETRY_S = 60.0

log = structlog.get_logger()


def begin(config: Config, *, clock: Clock, rng: random.Random, space: Space) -> bool:
    """Make sure that the spool can be opened; return whether it was checked whole. Raises ScoutAgentError.

    A damaged one is moved aside, and what sources must know is carried over into a new one.
    """
    path = config.spool_file
    until_s = clock.monotonic_s() + damage.CHECK_WITHIN_S
    try:
        space.keep_reserve()
        with damage.alone(path):
            finding = damage.find(path, lambda: clock.monotonic_s() < until_s)
            if finding.reasons:
                damage.refuse_anothers(path, config.device.id)
                damage.mark(path, "; ".join(finding.reasons), clock)
            folder = damage.move_aside(path)
    except OSError as error:
        raise LocalFault(f"{path.parent}: {error.strerror}. Nothing was lost; start the agent again.") from error
    if folder:
        log.error("spool_moved_aside", folder=str(folder), reason=damage.reason_of(folder))
    if damage.folders(path):
        salvage = Salvage(path, config.device.id, clock=clock, rng=rng, space=space)
        try:
            for folder in damage.folders(path):
                salvage.carry_over(folder)
        finally:
            salvage.close()
    return finding.finished


class Upkeep:
    """The thread that checks what was left unchecked, and salvages."""

    def __init__(
        self,
        config: Config,
        *,
        checked: bool,
        clock: Clock,
        rng: random.Random,
        space: Space,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._path = config.spool_file
        self._checked = checked
        self._clock = clock
        self._rng = rng
        self._space = space
        self._failed = failed

    def run(self, stop: threading.Event) -> None:
        """Work until there is nothing left to do, or until the agent ends."""
        while not stop.is_set():
            try:
                self._check(stop)
                self._salvage(stop)
            except Stopped:
                return
            except SpoolMalformed as error:
                self._failed(error)
                return
            except LocalFault as fault:
                log.warning("upkeep_delayed", reason=str(fault))
            except Exception:  # whatever is wrong with an old file must not end the intake of new sales
                log.exception("upkeep_failed")
            else:
                return
            stop.wait(RETRY_S)

    def _check(self, stop: threading.Event) -> None:
        if self._checked:
            return
        finding = damage.find(self._path, lambda: not stop.is_set())
        if finding.reasons:
            raise SpoolMalformed("; ".join(finding.reasons))
        self._checked = finding.finished

    def _salvage(self, stop: threading.Event) -> None:
        folders = damage.folders(self._path)
        if not folders:
            return
        salvage = Salvage(self._path, self._config.device.id, clock=self._clock, rng=self._rng, space=self._space)
        try:
            for folder in folders:
                self._salvage_one(salvage, folder, stop)
        finally:
            salvage.close()

    def _salvage_one(self, salvage: Salvage, folder: Path, stop: threading.Event) -> None:
        known = salvage.known(folder)
        if known and known.finished_at:
            return
        log.info("salvage_begun", folder=str(folder))
        done = salvage.take_in(folder, lambda: not stop.is_set(), lambda _page, _pages: None)
        level = log.error if done.rows_lost else log.info
        level("salvage_finished", folder=str(folder), rows_salvaged=done.rows_salvaged, rows_lost=done.rows_lost)
