"""A step repeated in a thread: woken by a nudge, and at the latest after its interval.

May be relied on: a nudge is never lost, only joined with others; a step that raises is tried again, each time
later up to a ceiling; the log says once that it fails and once that it works again. However many nudges
come, steps begin no closer together than SPACING_S: work gathers, and one step does it all.
"""

import threading
from collections.abc import Callable
from typing import Self

import psycopg
import structlog

from server.errors import ServerError

SPACING_S = 0.5
"""Every request nudges; a step per request would cost more than the request."""

BACKOFF_S_MAX = 60.0
"""How long an outage may be over before the loop notices. A nudge doesn't shorten it."""

log = structlog.get_logger()


class Loop:
    """Owns the thread that repeats `step`.

    At the end it waits `stop_s` for the step that runs, or without limit for None; a step left behind ends
    with its connection: its transaction is undone, and the next start does it again.
    """

    def __init__(self, name: str, step: Callable[[], object], interval_s: float, stop_s: float | None = 10.0) -> None:
        self.name = name
        self._step = step
        self._interval_s = interval_s
        self._stop_s = stop_s
        self._nudged = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(self._stop_s)
        if self._thread.is_alive():
            log.warning("step_left_behind", loop=self.name)

    @property
    def is_alive(self) -> bool:
        """Whether its thread lives, at a step or waiting for the next."""
        return self._thread.is_alive()

    def nudge(self) -> None:
        """There is work: don't wait for the interval."""
        self._nudged.set()

    def stop(self) -> None:
        """End after the step that runs now."""
        self._stopping.set()
        self._nudged.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  # a loop that ended would be noticed by nobody
                failures += 1
                if failures == 1:
                    log.warning("step_failed", loop=self.name, error=type(error).__name__, **_known_of(error))
                self._stopping.wait(min(self._interval_s * 2 ** (failures - 1), BACKOFF_S_MAX))
            else:
                if failures:
                    log.info("step_recovered", loop=self.name, failures=failures)
                failures = 0
                self._stopping.wait(SPACING_S)
                self._nudged.wait(self._interval_s)


def _known_of(error: Exception) -> dict[str, str | None]:
    """What may be logged of an error: our own words, but not a database's, which may quote a sale."""
    if isinstance(error, ServerError):
        return {"reason": str(error)}
    return {"sqlstate": error.sqlstate} if isinstance(error, psycopg.Error) else {}
