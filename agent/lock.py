"""The lock that a daemon holds on its spool for as long as it lives, however it dies.

May be relied on: two daemons never run on one spool; whoever only wants to know takes nothing away.
"""

import fcntl
from pathlib import Path
from typing import TextIO

from agent.errors import LocalFault

_NAME = "daemon.lock"


def only_daemon(folder: Path) -> TextIO:
    """Hold the spool's lock until the file is closed: two daemons on one spool would send everything twice.

    Raises LocalFault when another one runs, or the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = (folder / _NAME).open("a+")
    except OSError as error:
        raise LocalFault(f"{folder}: {error.strerror}. The agent's user must be able to write there.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LocalFault(f"{folder}: another scout-agent runs on this spool. Stop it first.") from None
    return lock


def is_running(folder: Path) -> bool:
    """Whether a daemon lives on this spool."""
    try:
        with (folder / _NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
