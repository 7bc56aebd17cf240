"""The lock that says that a daemon runs on a spool: held for as long as its process lives, however it dies."""

import fcntl
from pathlib import Path
from typing import IO

from agent.errors import LocalFault


def hold(folder: Path) -> IO[str]:
    """Take the lock of a spool's folder; raise LocalFault when another process has it, or it can't be made.

    Two daemons on one spool would send everything twice.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = (folder / "daemon.lock").open("a+")
    except OSError as error:
        raise LocalFault(f"{folder}: {error.strerror}. The agent's user must be able to write there.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LocalFault(f"{folder}: another scout-agent runs on this spool. Stop it first.") from None
    return lock


def is_held(folder: Path) -> bool:
    """Whether a daemon runs. Makes and changes nothing."""
    try:
        with (folder / "daemon.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
