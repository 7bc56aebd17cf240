"""What the running daemon counts, for `/metrics`. In memory only: a restart begins at nothing, as scrapers expect.

May be relied on: every thread may count; `read` gives one moment. Names are those of docs/metrics.md, and so are
the labels; nothing of a sale is ever one of them.
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

RECORDS_TAKEN = "scout_agent_records_taken_total"
RECORDS_REFUSED = "scout_agent_records_refused_total"
BATCHES_SENT = "scout_agent_batches_sent_total"
TEXT_BYTES_SENT = "scout_agent_sent_text_bytes_total"
FAULTS = "scout_agent_faults_total"
REQUESTS = "scout_agent_local_http_requests_total"
REQUEST_DURATION = "scout_agent_local_http_request_duration_seconds"
COMMITS = "scout_agent_local_http_commits_total"
HEARTBEAT_ANSWERED = "heartbeat_answered"

DURATION_BOUNDS_S = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""A sync of a good card takes about 5 ms, of a bad one half a second; whoever waits longer has given up."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Durations:
    """How many took at most so long: one count for each of DURATION_BOUNDS_S, and one for the longer ones."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS_S) + 1)
    sum_s: float = 0.0

    def with_one(self, seconds: float) -> "Durations":
        """These and one more."""
        place = bisect_left(DURATION_BOUNDS_S, seconds)
        counts = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return Durations(counts, self.sum_s + seconds)


@dataclass(frozen=True, slots=True)
class Counted:
    """One moment of all counters. `moments` are monotonic seconds."""

    counts: Mapping[tuple[str, Labels], int] = field(default_factory=dict)
    durations: Mapping[str, Durations] = field(default_factory=dict)
    moments: Mapping[str, float] = field(default_factory=dict)


class Counters:
    """Every counter of the daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Labels], int] = {}
        self._durations: dict[str, Durations] = {}
        self._moments: dict[str, float] = {}

    def add(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + by

    def took(self, name: str, seconds: float) -> None:
        """Count something by how long it took."""
        with self._lock:
            self._durations[name] = self._durations.get(name, Durations()).with_one(seconds)

    def happened(self, name: str, monotonic_s: float) -> None:
        """Note when something happened last."""
        with self._lock:
            self._moments[name] = monotonic_s

    def read(self) -> Counted:
        """All of it, as it stands now."""
        with self._lock:
            return Counted(dict(self._counts), dict(self._durations), dict(self._moments))
