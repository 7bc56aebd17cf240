"""When to try again: per destination, later each time with full jitter, never giving up.

May be relied on: the n-th failure in a row waits a random time up to 2^n seconds and at most the ceiling, or as
long as the server asked for if that is longer; a success forgets all failures. `Route` moves deliveries to the
other path after some failures in a row, with the same batch under the same name, and returns by itself.
"""

from collections.abc import Sequence

import tenacity

from agent.clock import Clock


class Pace:
    """The state of one destination."""

    def __init__(self, clock: Clock, wait_max_s: float) -> None:
        self._clock = clock
        self._wait = tenacity.wait_random_exponential(multiplier=1, max=wait_max_s)
        self._not_before_s = float("-inf")
        self._floor_s = float("-inf")
        self.failures = 0

    def failed(self, at_least_s: float = 0.0) -> float:
        """Count a failure; return the seconds until the next try."""
        self.failures += 1
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = self.failures
        wait_s = max(self._wait(state), at_least_s)
        self._floor_s = self._clock.monotonic_s() + at_least_s
        self._not_before_s = self._clock.monotonic_s() + wait_s
        return wait_s

    def hurry(self) -> None:
        """Try sooner, though not before the server asked for, or than a try without an answer must be waited out."""
        self._not_before_s = min(self._not_before_s, self._floor_s)

    def succeeded(self) -> bool:
        """Forget failures; True when there were some, so that recovery can be announced."""
        recovered, self.failures = self.failures > 0, 0
        self._not_before_s = float("-inf")
        return recovered

    def ready_in_s(self) -> float:
        """Seconds until the next try may be made."""
        return max(0.0, self._not_before_s - self._clock.monotonic_s())


class Route:
    """Which path the next batch takes."""

    def __init__(
        self,
        paths: Sequence[str],
        clock: Clock,
        *,
        wait_max_s: float,
        failover_after: int,
        failback_after_s: float,
    ) -> None:
        self._clock = clock
        self._paths = {name: Pace(clock, wait_max_s) for name in paths}
        self._names = list(paths)
        self._active = self._names[0]
        self._failover_after = failover_after
        self._failback_after_s = failback_after_s
        self._left_first_s = float("inf")
        self._failures_in_a_row = 0

    @property
    def active(self) -> str:
        """The path that is taken unless something speaks against it."""
        return self._active

    @property
    def names(self) -> tuple[str, ...]:
        """Every path, the preferred one first."""
        return tuple(self._names)

    def choose(self, avoiding: str | None = None) -> str:
        """The path for the next try.

        The first one is tried again after failback_after_s elsewhere. A batch that was refused on the path that it
        is `avoiding` takes another one that works.
        """
        first, now_s = self._names[0], self._clock.monotonic_s()
        is_due = now_s - self._left_first_s >= self._failback_after_s and self._paths[first].ready_in_s() <= 0.0
        path = first if is_due else self._active
        if path != avoiding:
            return path
        return next((name for name in self._names if name != path and not self._paths[name].failures), path)

    def ready_in_s(self, path: str | None = None) -> float:
        """Seconds until a path, the active one if none is named, may be tried."""
        return self._paths[path or self._active].ready_in_s()

    def failures(self, path: str) -> int:
        """How often in a row this path failed."""
        return self._paths[path].failures

    def succeeded(self, path: str) -> bool:
        """Stay on the path that worked; True when it had failed before."""
        self._take(path)
        return self._paths[path].succeeded()

    def failed(self, path: str, at_least_s: float = 0.0) -> str:
        """Count a failure; return the path that is active from now on."""
        self._paths[path].failed(at_least_s)
        if path != self._active:
            if path == self._names[0]:
                self._left_first_s = self._clock.monotonic_s()  # only asked whether it is back
            return self._active
        self._failures_in_a_row += 1
        others = [name for name in self._names if name != path]
        if others and self._failures_in_a_row >= self._failover_after:
            self._take(others[0])
        return self._active

    def hurry(self, path: str) -> None:
        """Take this path for the next try, and soon."""
        self._take(path)
        self._paths[path].hurry()

    def _take(self, path: str) -> None:
        first = self._names[0]
        if path == first:
            self._left_first_s = float("inf")
        elif self._active == first:
            self._left_first_s = self._clock.monotonic_s()
        self._active, self._failures_in_a_row = path, 0
