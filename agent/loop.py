"""A loop of the daemon: a thread that repeats a step, and an event that wakes it before its time.

May be relied on: a fault of this machine ends no loop, the step is tried again. Proof that the spool is damaged, and
anything else, which is our own mistake, goes to the main thread by way of `failed`. Every step is marked, so that one
that hangs is seen.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from agent.counters import FAULTS, Counters
from agent.damage import in_words, proves_damage
from agent.errors import LocalFault, SpoolMalformed
from agent.progress import Progress

LOCAL_FAULT_PAUSE_S = 5.0

log = structlog.get_logger()


@dataclass
class Loop:
    """One thread. `step` returns the seconds after which it is to be called again."""

    name: str
    step: Callable[[], float]
    failed: Callable[[BaseException], None]
    progress: Progress
    counters: Counters
    wake: threading.Event
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the present step be the last one."""
        self._stop.set()
        self.wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the last step, at most so long."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.wake.clear()
            self.progress.mark(self.name)
            try:
                wait_s = self.step()
            except BaseException as error:  # noqa: BLE001  (what is no local fault goes to the main thread)
                if proves_damage(error):
                    self.failed(SpoolMalformed(in_words(error)))
                    return
                if not isinstance(error, (LocalFault, OSError, sqlite3.OperationalError)):
                    self.failed(error)
                    return
                log.error("local_fault", loop=self.name, reason=str(error))  # noqa: TRY400  (no traceback: expected)
                self.counters.add(FAULTS, kind="local")
                wait_s = LOCAL_FAULT_PAUSE_S
            if wait_s > 0.0:
                self.progress.mark(self.name, quiet_for_s=wait_s)
                self.wake.wait(wait_s)
