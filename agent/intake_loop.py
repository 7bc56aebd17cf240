"""The intake loop: every source in turn, on one thread and one connection to the spool.

May be relied on: a source in trouble holds up no other, and is tried again.
"""

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.clock import Clock
from agent.config import Config
from agent.counters import RECORDS_REFUSED, RECORDS_TAKEN, Counters
from agent.errors import LocalFault
from agent.intake import Source, Tally
from agent.loop import note_fault
from agent.metrics import Metrics
from agent.sources.folder import FolderSource
from agent.sources.local_http import LocalHttpSource
from agent.spool import Spool


class Intake:
    """The sources of one config."""

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
            return note_fault("intake", fault, self._counters)


def sources_of(
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
