"""What the daemon knows and the spool doesn't, shared by its threads and shown by `status`.

May be relied on: `facts` is one frozen moment, whichever thread reads it; `note` replaces what it names and
tells `changed`. Losing it all, at a kill, loses nothing but what can be seen again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class ReportedFault:
    """The daemon's last fault, in plain words, and what to do next."""

    kind: str
    message: str
    next_step: str
    at: str


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What only the running daemon knows."""

    pid: int
    version: str
    started_at: str
    last_fault: ReportedFault | None = None
    space_short: str | None = None  # why room is short, and what to do


class Board:
    """Holds the facts. Every thread may read and note."""

    def __init__(self, facts: DaemonFacts, changed: Callable[[DaemonFacts], None] = lambda _facts: None) -> None:
        self._facts = facts
        self._changed = changed
        self._lock = threading.Lock()
        changed(facts)

    @property
    def facts(self) -> DaemonFacts:
        """The present facts."""
        return self._facts

    def note(self, **changes: Any) -> None:
        """Replace some facts by name."""
        with self._lock:
            self._facts = replace(self._facts, **changes)
            self._changed(self._facts)
