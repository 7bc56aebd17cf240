"""A loop of the daemon: a thread that repeats a step, and an event that wakes it before its time.

May be relied on: a fault of this machine ends no loop, the step is tried again; anything else is our own mistake
and ends the daemon by way of `failed`. Every step is marked, so that one that hangs is seen.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from agent.counters import FAULTS, Counters
from agent.errors import LocalFault
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
            except (LocalFault, sqlite3.OperationalError) as fault:
                wait_s = note_fault(self.name, fault, self.counters)
            except BaseException as error:  # noqa: BLE001  (handed to the main thread, which ends the daemon)
                self.failed(error)
                return
            if wait_s > 0.0:
                self.progress.mark(self.name, quiet_for_s=wait_s)
                self.wake.wait(wait_s)


def note_fault(loop: str, fault: Exception, counters: Counters) -> float:
    """Log and count a fault of this machine; return in how many seconds to try again."""
    log.error("local_fault", loop=loop, reason=str(fault))
    counters.add(FAULTS, kind="local")
    return LOCAL_FAULT_PAUSE_S
