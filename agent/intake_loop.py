"""The intake loop: every source in turn, on one thread and one connection to the spool.

May be relied on: a source in trouble holds up no other, and is tried again.
"""

import random
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.board import Board
from agent.clock import Clock
from agent.config import Config
from agent.counters import FAULTS, RECORDS_REFUSED, RECORDS_TAKEN, Counters
from agent.damage import proves_damage
from agent.errors import LocalFault, SpoolFull
from agent.intake import Source, Tally
from agent.loop import LOCAL_FAULT_PAUSE_S
from agent.metrics import Metrics
from agent.sources.folder import FolderSource
from agent.sources.local_http import LocalHttpSource
from agent.sources.tail import TailSource
from agent.space import Space
from agent.spool import Spool

log = structlog.get_logger()


class Intake:
    """The sources of one config, by name.

    A source that can't start or take a step is left alone for LOCAL_FAULT_PAUSE_S, however often the others wake
    the loop. What holds it up is logged once, and stands on the board until it is over.
    """

    def __init__(self, sources: Mapping[str, Source], board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._stands = [_Stand(name, source) for name, source in sources.items()]

    def close(self) -> None:
        """Stop listening."""
        for stand in self._stands:
            stand.source.close()
        self._board.note(source_faults=())

    def step(self) -> float:
        """Take what is ready anywhere; return in how many seconds to look again."""
        return min(self._step_of(stand) for stand in self._stands)

    def _step_of(self, stand: "_Stand") -> float:
        pause_s = stand.paused_until_s - self._clock.monotonic_s()
        if pause_s > 0:
            return pause_s
        try:
            if not stand.started:
                stand.source.start()
                stand.started = True
            wait_s = stand.source.step()
        except SpoolFull:
            return LOCAL_FAULT_PAUSE_S  # told by Space, once; this source is not to blame
        except (LocalFault, sqlite3.OperationalError) as fault:
            if proves_damage(fault):
                raise
            stand.paused_until_s = self._clock.monotonic_s() + LOCAL_FAULT_PAUSE_S
            self._held_up(stand, str(fault))
            return LOCAL_FAULT_PAUSE_S
        self._held_up(stand, None)
        return wait_s

    def _held_up(self, stand: "_Stand", reason: str | None) -> None:
        """Say what holds a source up, when that changes."""
        if reason == stand.fault:
            return
        stand.fault = reason
        if reason is None:
            log.info("local_fault_over", source=stand.name)
        else:
            log.error("local_fault", source=stand.name, reason=reason)
            self._board.counters.add(FAULTS, kind="local")
        self._board.note(source_faults=tuple((each.name, each.fault) for each in self._stands if each.fault))


@dataclass
class _Stand:
    """A source and how it stands with it."""

    name: str
    source: Source
    started: bool = False
    paused_until_s: float = float("-inf")
    fault: str | None = None


def sources_of(
    config: Config,
    spool: Spool,
    space: Space,
    wake: Callable[[], None],
    counters: Counters,
    *,
    clock: Clock,
    rng: random.Random,
) -> dict[str, Source]:
    """Every source that the config asks for, by the name of its section. `space` is the spool's."""
    sources: dict[str, Source] = {}
    if config.folder.path:
        sources["folder"] = FolderSource(
            Path(config.folder.path),
            spool,
            settle_s=config.folder.settle_s,
            file_bytes_max=config.folder.file_bytes_max,
            wake=wake,
            clock=clock,
            rng=rng,
            tally=_tally(counters, "folder"),
        )
    if config.tail.path:
        sources["tail"] = TailSource(
            Path(config.tail.path),
            spool,
            rejected=config.tail_rejected_folder,
            wake=wake,
            clock=clock,
            tally=_tally(counters, "tail"),
        )
    if config.local_http.is_on:
        sources["local_http"] = LocalHttpSource(
            config.local_http,
            Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space),  # of its committing thread
            Metrics(config, counters, clock).exposition,
            counters=counters,
            wake=wake,
            clock=clock,
            tally=_tally(counters, "local_http"),
        )
    return sources


def _tally(counters: Counters, source: str) -> Tally:
    def tally(taken: int, refused: int) -> None:
        counters.add(RECORDS_TAKEN, taken, source=source)
        counters.add(RECORDS_REFUSED, refused, source=source)

    return tally
