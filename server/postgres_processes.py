"""Which PostgreSQL processes work in a data directory, and how they are brought to an end.

A process is known by its name and its working directory, never by a number in a file alone: after a reboot
that number may be anybody's.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.errors import PostgresUnavailable
from server.postgres_binaries import PROGRAMS

POLL_S = 0.05


@dataclass(frozen=True)
class Postmaster:
    """What a cluster's postmaster.pid says; `status` is PostgreSQL's word, such as "starting" or "ready"."""

    pid: int
    port: int
    status: str


def read_postmaster(cluster: Path) -> Postmaster | None:
    """Read postmaster.pid; None when it is missing or half written. Raises PermissionError."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), int(lines[3]), lines[7].strip())
    except (FileNotFoundError, IndexError, ValueError):
        return None


def processes_in(root: Path) -> set[int]:
    """Return the ids of the living PostgreSQL processes that work below the folder `root`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = (process / "comm").read_text().strip() in PROGRAMS
            if named and (process / "cwd").readlink().is_relative_to(root):
                found.add(int(process.name))
        except OSError:
            continue  # it has ended, or it is another user's
    return found


def end_processes(
    root: Path, *, timeout_s: float, monotonic: Callable[[], float], pause: Callable[[float], object]
) -> set[int]:
    """End every PostgreSQL process below `root` at once, and return those that were there.

    Nothing committed is lost: the next start recovers. Raises PostgresUnavailable when a process still lives
    `timeout_s` after it was asked to quit and as long again after it was killed.
    """
    found = living = processes_in(root)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        gives_up_at = monotonic() + timeout_s
        while living := processes_in(root):
            if monotonic() > gives_up_at:
                break
            pause(POLL_S)
    if living:
        raise PostgresUnavailable(
            f"the PostgreSQL processes {sorted(living)} in {root} do not end, probably because the disk does "
            "not answer. Look at the disk, then start again."
        )
    return found
