"""The loader's step, for a loop: what was just stored, by name; the days' folders now and then; the whole bucket daily.

May be relied on: a name noted here is loaded by the next step, however many objects lie beside it. A name that is
lost (too many at once, a step that failed, a restart) costs delay, never data: listing finds the object.
Listing takes a bounded share of the time, however full a day's folder becomes.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic

from psycopg_pool import ConnectionPool

from server.bucket import Bucket
from server.config import now
from server.loader import LoadSummary, load
from server.repair import repair

SWEEP_INTERVAL_S = 24 * 3600.0
"""How late an object may be found that no device awaits and that lies in an old day's folder."""

LISTING_PAUSE_FACTOR = 10.0
"""A step with a listing is followed by so many times its own time without: few objects are listed at each step."""

LISTING_PAUSE_S_MAX = 60.0
"""How much later an object may be found that was put into the bucket past us."""

NAMES_MAX = 20_000
"""Stored since the last step; beyond, the oldest are left to a listing."""


class Loading:
    """Remembers between steps what was stored, and when the bucket was listed. `on_loaded`: rows came to bronze."""

    def __init__(
        self,
        pool: ConnectionPool,
        bucket: Bucket,
        on_loaded: Callable[[], None],
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._pool = pool
        self._bucket = bucket
        self._on_loaded = on_loaded
        self._monotonic = monotonic
        self._stored: deque[str] = deque(maxlen=NAMES_MAX)
        self._list_at = self._sweep_at = monotonic()

    def note_stored(self, key: str) -> None:
        """Have the next step look for this object. May be called by any thread."""
        self._stored.append(key)

    def step(self) -> LoadSummary:
        """Load what is new, then see to what is missing: the next step loads what that finds. Raises as `load`."""
        began, list_at = self._monotonic(), self._list_at
        sweep = began >= self._sweep_at
        lists = sweep or began >= list_at
        stored = [self._stored.popleft() for _ in range(len(self._stored))]
        self._list_at = began  # should this step fail, the names are forgotten, and the next one lists
        summary = load(self._pool, self._bucket, today=now().date(), sweep=sweep, lists=lists, stored=stored)
        ended = self._monotonic()
        if lists:
            list_at = ended + min(LISTING_PAUSE_FACTOR * (ended - began), LISTING_PAUSE_S_MAX)
        if sweep:
            self._sweep_at = began + SWEEP_INTERVAL_S
        self._list_at = list_at
        if summary.accepted:
            self._on_loaded()
        repair(self._pool, self._bucket)  # last: it must not keep anything from loading
        return summary
