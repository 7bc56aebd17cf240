"""`spool repair`: what the agent does by itself at a start, done now, and after a look at everything.

May be relied on
- Nothing is deleted. A spool in which anything is wrong is moved aside whole, and all that can be read of it is
  salvaged: rather a sale twice on its way than once not.
- No daemon runs meanwhile: its lock is held. A dry run changes no file.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent import damage
from agent.clock import Clock
from agent.config import Config
from agent.errors import LocalFault
from agent.inspection import Inspection, inspect
from agent.lock import is_running, only_daemon
from agent.salvage import Salvage, Salvaged
from agent.space import space_of
from agent.upkeep import begin


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair would do, and why."""

    reasons: tuple[str, ...]  # why the spool is moved aside; none where it is sound
    folders: tuple[str, ...]  # moved aside before, and not read to their end

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be repaired."""
        return not self.reasons and not self.folders


def plan_of(config: Config) -> Plan:
    """What a repair would do now; changes nothing. Raises LocalFault while a daemon runs, or when it can't be told."""
    if is_running(config.spool_file.parent):
        raise LocalFault(f"{config.spool_file.parent}: scout-agent runs on this spool. Stop it first.")
    return _plan(inspect(config.spool_file))


def repair(config: Config, *, clock: Clock, rng: random.Random, seen: Callable[[int, int], None]) -> list[Salvaged]:
    """Move a damaged spool aside and salvage what was not salvaged yet; `seen` hears pages done, and of how many.

    Raises LocalFault while a daemon runs, and when the disk is in trouble.
    """
    with only_daemon(config.spool_file.parent):
        plan = _plan(inspect(config.spool_file))
        if plan.reasons:
            damage.mark(config.spool_file, "; ".join(plan.reasons[: damage.REASONS_KEPT]), clock)
        space = space_of(config)
        begin(config, clock=clock, rng=rng, space=space)
        salvage = Salvage(config.spool_file, config.device.id, clock=clock, rng=rng, space=space)
        try:
            return [
                salvage.take_in(folder, lambda: True, seen)
                for folder in damage.folders(config.spool_file)
                if not _is_finished(salvage, folder)
            ]
        finally:
            salvage.close()


def _plan(inspection: Inspection) -> Plan:
    if inspection.unreadable:
        raise LocalFault(f"{inspection.file}: {inspection.unreadable}. That is no damage to repair.")
    return Plan(inspection.damage, tuple(folder.folder for folder in inspection.unsalvaged))


def _is_finished(salvage: Salvage, folder: Path) -> bool:
    known = salvage.known(folder)
    return known is not None and known.finished_at is not None
