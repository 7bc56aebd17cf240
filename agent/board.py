"""What the daemon knows and the spool doesn't, shared by its threads and shown by `status`.

May be relied on: `facts` is one frozen moment, whichever thread reads it; `note` replaces what it names and
tells `changed`. Losing it all, at a kill, loses nothing but what can be seen again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agent.counters import Counters


@dataclass(frozen=True, slots=True)
class ReportedFault:
    """The daemon's last fault, in plain words, and what to do next."""

    kind: str
    message: str
    next_step: str
    at: str


@dataclass(frozen=True, slots=True)
class ReportedSend:
    """How the last order to deliver now ended. The id is the order's."""

    id: str
    is_delivered: bool
    message: str


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What only the running daemon knows."""

    pid: int
    version: str
    started_at: str
    last_fault: ReportedFault | None = None
    path: str | None = None  # by which deliveries go: bucket or endpoint
    paused_until: str | None = None  # a technician's pause
    quiet_until: str | None = None  # upload.quiet_hours
    quiet_hours_ignored: str | None = None  # why
    config_refused: str | None = None  # why the config file as it stands is not in force
    last_send: ReportedSend | None = None
    clock_offset_s: float | None = None  # the server's clock minus this device's
    intake_refused: str | None = None  # why no sale can be taken, e.g. a full spool
    source_faults: tuple[tuple[str, str], ...] = ()  # which source takes nothing, and why
    renewal_fault: ReportedFault | None = None  # why the token could not be renewed at the last try
    kept_shortened: bool = False  # settled sales leave early, for the disk is nearly full


class Board:
    """Holds the facts and the counters. Every thread may read, note and count."""

    def __init__(self, facts: DaemonFacts, changed: Callable[[DaemonFacts], None] = lambda _facts: None) -> None:
        self.counters = Counters()
        self._facts = facts
        self._changed = changed
        self._lock = threading.Lock()
        changed(facts)

    @property
    def facts(self) -> DaemonFacts:
        """The present facts."""
        return self._facts

    def note(self, **changes: Any) -> None:
        """Replace some facts by name. What is known already is not told again."""
        with self._lock:
            facts = replace(self._facts, **changes)
            if facts != self._facts:
                self._facts = facts
                self._changed(facts)
