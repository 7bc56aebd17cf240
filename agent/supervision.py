"""What the main thread does while the loops work: it waits for signals, and watches whether the loops get on.

May be relied on: systemd's watchdog is fed only while every loop lives (agent/progress.py). When one hangs, the
stacks of all threads (places in the code, no values) are in the log before the watchdog kills; one that gets on
again in time is forgiven. Idle, this costs one wake-up in `CHECK_S` seconds.
"""

import faulthandler
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import TextIO

import structlog

from agent.progress import Progress
from agent.spool import Spool
from agent.systemd import Manager

CHECK_S = 30.0
PINGS_PER_WATCHDOG = 3
"""So that one lost or late ping kills nobody."""

ENDING = {signal.SIGTERM, signal.SIGINT}
HEEDED = ENDING | {signal.SIGHUP}
"""To be blocked before any thread starts, so that `supervise` alone receives them."""

log = structlog.get_logger()


def supervise(
    manager: Manager,
    progress: Progress,
    *,
    words: Callable[[], str],
    look_again: Callable[[], None],
    stacks_to: TextIO,
) -> None:
    """Return at SIGTERM or SIGINT. `look_again` is called at SIGHUP, `words` whenever systemd is told the state."""
    check_s = manager.watchdog_s / PINGS_PER_WATCHDOG if manager.watchdog_s else CHECK_S
    hung: set[str] = set()
    manager.tell("READY=1")
    while True:
        hung = _check(manager, progress, hung, stacks_to)
        if manager.listens:
            manager.tell(f"STATUS={words()}")
        heard = signal.sigtimedwait(HEEDED, check_s)
        if heard is not None and heard.si_signo in ENDING:
            # Our own is a loop's that failed: the process may begin anew, and systemd would kill what said it stops.
            if heard.si_pid != os.getpid():
                manager.tell("STOPPING=1")
            return
        if heard is not None:
            look_again()


def _check(manager: Manager, progress: Progress, known: set[str], stacks_to: TextIO) -> set[str]:
    """Feed the watchdog, or say once of every loop that it hangs; return those that do."""
    hung = progress.hung_since()
    if not hung:
        manager.tell("WATCHDOG=1")
    for name in hung.keys() - known:
        log.critical("loop_hung", loop=name, silent_s=round(hung[name]))
    for name in known - hung.keys():
        log.warning("loop_recovered", loop=name)
    if hung.keys() - known:
        faulthandler.dump_traceback(stacks_to)
    return set(hung)


def backlog_in_words(spool: Spool) -> str:
    """What waits in the spool, for a person who asks systemd.

    The connection is kept: each new one touches a page of the spool's index, and so the card, though it only reads.
    """
    try:
        unsent_rows, accepted_rows = spool.backlog()
    except sqlite3.Error as fault:
        return f"The spool can't be read: {fault}"
    if not (unsent_rows or accepted_rows):
        return "Every sale is delivered and receipted."
    return f"{unsent_rows:,} sales wait to be sent, {accepted_rows:,} for their receipt."
