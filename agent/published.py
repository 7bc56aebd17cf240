"""status.json: the daemon's last look at itself, for anybody on this machine.

May be relied on: the file is whole whenever it is read, world-readable whatever the umask, and holds no secret
and no payload. In systemd's runtime directory, which is memory, it follows every change within seconds.
Without one it would lie on the card: there it is written only when something important changed. Losing it
loses nothing.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import orjson
import structlog

from agent.board import DaemonFacts
from agent.clock import Clock
from agent.config import RUNTIME_DEFAULT, STATUS_FILE, runtime_directory
from agent.errors import ScoutAgentError
from agent.files import write_safely
from agent.verdict import Status

FACTS_S = 1.0
"""What the daemon itself noted is published at once, but no sooner than this after the last look."""

LOOK_S = 5.0
"""The same for what changed in the spool: on a busy day that is every second."""

REFRESH_S = 60.0
"""Other things are looked at this often. In memory the file is written then, so that its age tells of life."""

log = structlog.get_logger()


class Publisher:
    """Writes the file. `step` looks whether that is due; it never fails."""

    def __init__(
        self,
        path: Path,
        look: Callable[[], Status],
        facts: Callable[[], DaemonFacts],
        watched: Iterable[Path],
        *,
        in_memory: bool,
        clock: Clock,
    ) -> None:
        """`look` gathers a status; a change of the facts or of a watched file means that there is something new."""
        self._path = path
        self._look = look
        self._facts = facts
        self._watched = tuple(watched)
        self._in_memory = in_memory
        self._clock = clock
        self._looked_at_s = float("-inf")
        self._seen_facts: object = None
        self._seen_files: object = None
        self._shown: object = None
        self._failed = False

    def step(self) -> float:
        """Publish if that is due; return in how many seconds to look again."""
        facts, files = self._facts(), tuple(_signature(path) for path in self._watched)
        pause_s = FACTS_S if facts != self._seen_facts else LOOK_S if files != self._seen_files else REFRESH_S
        wait_s = self._looked_at_s + pause_s - self._clock.monotonic_s()
        if wait_s > 0.0:
            return min(wait_s, LOOK_S)
        self._seen_facts, self._seen_files, self._looked_at_s = facts, files, self._clock.monotonic_s()
        self._publish()
        return LOOK_S

    def _publish(self) -> None:
        try:
            status = self._look()
            shown = status if self._in_memory else _important(status)
            if shown == self._shown:
                return
            write_safely(os.fsencode(self._path), orjson.dumps(status.to_fields()), mode=0o644)
        except (OSError, sqlite3.Error, ScoutAgentError) as error:
            if not self._failed:
                log.warning("status_not_published", file=str(self._path), reason=str(error))
            self._failed = True
        else:
            self._shown, self._failed = shown, False


def published_for(device: str | None = None, spool_directory: Path | None = None) -> Status | None:
    """The newest word of a daemon on this machine, of this device if one is named; None when there is none."""
    folders = (runtime_directory(), RUNTIME_DEFAULT, spool_directory)
    for folder in dict.fromkeys(folder for folder in folders if folder):
        status = _read(folder / STATUS_FILE)
        if status and device in (None, status.device):
            return status
    return None


def as_of_now(status: Status) -> Status:
    """What somebody published, corrected by whether its daemon still lives."""
    if status.daemon is not None and _is_alive(status.daemon.pid):
        return status
    return replace(status, running=False, daemon=None)


def _is_alive(pid: int) -> bool:
    """Ask by signal 0, which does nothing: /proc may hide the processes of others."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _read(path: Path) -> Status | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None


def _important(status: Status) -> object:
    """What is worth a write to the card."""
    daemon = status.daemon and replace(status.daemon, path=None, clock_offset_s=None, last_fault=None)
    fault = status.last_fault.kind if status.last_fault else None
    codes = tuple(problem.code for problem in (*status.broken, *status.attention))
    return status.device, daemon, fault, codes


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
