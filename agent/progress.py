"""Whether the loops live: each says that it got on, and for how long it will now be quiet.

May be relied on: a loop that waits for as long as it announced lives, however long that is; one whose network is
away lives, for each try ends and is marked; one that stands within a step for longer than its limit hangs. Any
thread may mark for any loop: an upload that moves bytes, however slowly, is marked by whoever moves them.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from agent.clock import Clock


@dataclass(frozen=True, slots=True)
class _Mark:
    """The last sign of a loop, and when the next one is due at the latest; seconds of the monotonic clock."""

    at_s: float
    due_s: float


class Progress:
    """The last sign of each loop. Every thread may mark and ask."""

    def __init__(self, limits_s: Mapping[str, float], clock: Clock) -> None:
        """`limits_s`: for each loop, how many seconds one piece of work may take without a sign."""
        self._limits_s = limits_s
        self._clock = clock
        self._lock = threading.Lock()
        self._marks: dict[str, _Mark] = {}
        for name in limits_s:
            self.mark(name)

    def limit(self, name: str, limits_s: Mapping[str, float]) -> None:
        """Hold the loop `name` to another limit from now on, and the others from their next marks."""
        self._limits_s = limits_s
        self.mark(name)

    def mark(self, name: str, quiet_for_s: float = 0.0) -> None:
        """Note that the loop `name` got on, and will be quiet for so many seconds because nothing is due."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._marks[name] = _Mark(now_s, now_s + quiet_for_s + self._limits_s[name])

    def hung_since(self) -> dict[str, float]:
        """The loops that are overdue, each with the seconds since its last sign; empty when all live."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            return {name: now_s - mark.at_s for name, mark in self._marks.items() if now_s > mark.due_s}
