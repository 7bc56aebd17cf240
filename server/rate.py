"""How often each device may deliver: a token bucket for each, in memory.

A bucket holds `burst` deliveries and refills with `per_s` a second. Instead of what it holds, the moment is kept at
which it would be full again: one number for each device, and none for a device that has been idle that long.

May be relied on: never refused are `burst` deliveries at once, nor `per_s` in every second. No more than
`burst + per_s * t` are admitted in any `t` seconds. What is refused costs its sender nothing. Memory follows the
devices that delivered within the last `burst / per_s` seconds.
"""

import math
from collections.abc import Callable

import structlog

TOO_FAST = "this device sends faster than it may: wait, then send it again, several sales in one post."

_FORGET_FROM = 1024
"""Fewer entries than these are not worth looking through."""


log = structlog.get_logger()


class RateLimit:
    """Used by one thread: the one that answers requests."""

    def __init__(self, per_s: float, burst: int, monotonic: Callable[[], float]) -> None:
        assert per_s > 0
        assert burst >= 1
        self._each_s = 1.0 / per_s
        self._burst_s = burst / per_s
        self._monotonic = monotonic
        self._full_at_s: dict[str, float] = {}
        self._forget_at = _FORGET_FROM

    def wait_s(self, device_id: str) -> int:
        """Admit a delivery and return 0, or return after how many whole seconds the next one will be admitted."""
        now_s = self._monotonic()
        full_at_s = max(self._full_at_s.get(device_id, now_s), now_s) + self._each_s
        wait_s = full_at_s - now_s - self._burst_s
        if wait_s > _ROUNDING_S:
            log.warning("device_limited", device_id=device_id)
            return math.ceil(wait_s)
        self._full_at_s[device_id] = full_at_s
        if len(self._full_at_s) >= self._forget_at:
            self._forget_idle(now_s)
        return 0

    @property
    def devices(self) -> int:
        """How many devices are remembered."""
        return len(self._full_at_s)

    def _forget_idle(self, now_s: float) -> None:
        self._full_at_s = {name: at_s for name, at_s in self._full_at_s.items() if at_s > now_s}
        self._forget_at = max(_FORGET_FROM, 2 * len(self._full_at_s))


_ROUNDING_S = 1e-6
"""Adding up fractions of seconds errs by less than this."""
