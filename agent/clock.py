"""Time as the agent may use it. What needs time takes a Clock, so that tests and wrong clocks can lie.

May be relied on: `monotonic_s` and `mono_ms` never go back while the machine runs, whatever happens to
the wall clock; `boot` changes with every boot of the machine and with nothing else.
"""

import ctypes
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import uuid4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux
_TIME_ERROR = 5  # adjtimex(2): the kernel's clock is not synchronised


class Clock(Protocol):
    """The machine's clocks, and what is known about them."""

    @property
    def boot(self) -> str:
        """Identifies this boot of the machine."""

    def now(self) -> datetime:
        """The wall clock in UTC. It may be wrong by decades."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; for waiting and measuring."""

    def mono_ms(self) -> int:
        """Milliseconds since the machine booted, time asleep included."""

    def is_synced(self) -> bool:
        """Whether the kernel says that a time server disciplines the wall clock."""

    def sleep(self, seconds: float) -> None:
        """Let so much time pass; none when that is not above 0."""


class SystemClock:
    """The real clocks of this machine."""

    def __init__(self) -> None:
        try:
            self._boot = _BOOT_ID.read_text().strip()
        except OSError:
            # Without a boot id a restart of the agent must count as a boot: a new epoch is always safe.
            self._boot = str(uuid4())
        self._libc = ctypes.CDLL(None, use_errno=True)

    @property
    def boot(self) -> str:
        """Identifies this boot of the machine."""
        return self._boot

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)  # noqa: TID251  (the one place that asks)

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    def mono_ms(self) -> int:
        """Milliseconds since the machine booted."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def is_synced(self) -> bool:
        """Ask adjtimex(2), which only reads when no mode is set."""
        state: int = self._libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        return 0 <= state < _TIME_ERROR

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        if seconds > 0.0:
            time.sleep(seconds)  # noqa: TID251  (the one place that may)
