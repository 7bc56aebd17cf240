"""A look at ourselves, as a client has it: ready once we answer, and systemd's watchdog is fed only while we do.

    GET /healthz on our own listener ─▶ any answer: we answer    none: we don't
    every loop's thread              ─▶ alive                    one has ended: nobody else would notice

May be relied on: READY=1 is sent after the first answer, never before. An answer of 503 counts, for a database that is
away is not mended by killing us; so does a step that takes hours, for how long one takes follows what there is to do.
What ends in a restart is an event loop or a pool of threads that hangs, and a loop that died.
"""

import http.client
import threading
from collections.abc import Callable, Sequence
from typing import Self

import structlog

from server.config import Address
from server.loop import Loop
from server.systemd import Manager

ANSWER_S_MAX = 15.0
"""Four times what the endpoint may wait for the database."""

BEFORE_READY_S = 0.1
UNWATCHED_S = 30.0
LOOKS_PER_WATCHDOG = 4
"""Three of them may fail before the last one counts."""

log = structlog.get_logger()


def answers_at(address: Address) -> bool:
    """Whether a server answers there at all, whatever it says."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=ANSWER_S_MAX)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


class Vigil:
    """Owns the thread that looks, from its `with` on, if a manager listens. Once `is_ending`, nothing is wrong."""

    def __init__(
        self,
        manager: Manager,
        address: Address,
        loops: Sequence[Loop],
        is_ending: Callable[[], bool],
        answers: Callable[[Address], bool] = answers_at,
    ) -> None:
        self._manager = manager
        self._address = address
        self._loops = loops
        self._is_ending = is_ending
        self._answers = answers
        self._interval_s = manager.watchdog_s / LOOKS_PER_WATCHDOG if manager.watchdog_s else UNWATCHED_S
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vigil", daemon=True)

    def __enter__(self) -> Self:
        if self._manager.listens:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: it owns nothing, and its last look may find nobody who answers.
        self._ending.set()

    def _watch(self) -> None:
        while not self._answers(self._address):
            if self._ending.wait(BEFORE_READY_S):
                return
        self._manager.tell("READY=1", f"STATUS=Answers on {self._address.host} port {self._address.port}")
        while not self._ending.wait(self._interval_s):
            if self._is_well():
                self._manager.tell("WATCHDOG=1")

    def _is_well(self) -> bool:
        ended = [loop.name for loop in self._loops if not loop.is_alive]
        answers = self._answers(self._address)
        if (ended or not answers) and not self._is_ending():
            log.error("not_well", answers=answers, loops_ended=ended)
        return answers and not ended
