"""Record ids: UUIDv7 (RFC 9562, section 5.7), rising within a process.

May be relied on: of two ids minted by one process the later one is the higher, even within a millisecond or
when the wall clock steps back; two versions of one sale in one file are told apart by it.
"""

import random
from collections.abc import Iterator
from uuid import UUID

_RANDOM_BITS = 74
_MS_BITS = 48


class RecordIds:
    """Mints ids. Not shared between threads."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._last_ms = -1
        self._tail = 0

    def mint(self, now_ms: int, count: int) -> Iterator[str]:
        """Yield `count` ids for the moment `now_ms`, milliseconds since 1970 by the wall clock."""
        now_ms = max(0, min(now_ms, 2**_MS_BITS - 1))
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            # The top bit stays free, so that counting on never overflows into the time.
            self._tail = self._rng.getrandbits(_RANDOM_BITS - 1)
        for _ in range(count):
            self._tail += 1
            yield str(_uuid7(self._last_ms, self._tail))


def _uuid7(now_ms: int, tail: int) -> UUID:
    high, low = tail >> 62, tail & (2**62 - 1)
    return UUID(int=now_ms << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
