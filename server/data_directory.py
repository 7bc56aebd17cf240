"""The folder in which one server keeps everything, and the lock that makes it the only one there.

The lock is the kernel's (flock): it ends with its process however that dies, so a lock file left behind
refuses nobody. Its content only tells a person who holds it.

    DIR/lock          the lock
    DIR/restoring     while a restore fills the folder: nobody else opens it before that is done
    DIR/ready         while `up` answers: commands that come before wait for it
"""

import fcntl
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from server.errors import DataDirectoryHeld, Misconfigured
from server.files import hand_over, sync_folder, write_safely

RESTORING = "restoring"
READY = "ready"


class DataDirectory:
    """The folder of one server, made if missing and held for as long as this object is open.

    Raises DataDirectoryHeld when another process holds it, Misconfigured when it cannot be used, as when a restore
    was broken off in it; only another one, `is_restoring`, goes on there.
    """

    def __init__(self, path: Path, *, is_restoring: bool = False) -> None:
        self.path = path.resolve()
        try:
            self._lock = _hold(self.path)
        except OSError as error:
            raise Misconfigured(
                f"cannot use the data directory {self.path}: {error.strerror}. "
                "Choose a folder that this user owns, or start as the user that owns it."
            ) from error
        if (self.path / RESTORING).exists() and not is_restoring:
            self.close()
            raise Misconfigured(
                f"a restore into {self.path} was broken off, and the folder is not complete: repeat "
                "'scout-server restore', which begins anew there."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note_ready(self) -> None:
        """From now on commands find all that they need."""
        write_safely(self.path / READY, b"", 0o600)

    def close(self) -> None:
        """Let another process take the directory. Closing twice is harmless."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_starting(path: Path) -> bool:
    """Whether `up` has taken this folder and is not ready for commands yet, or is about to: the folder is empty."""
    try:
        holder = (path / "lock").read_text()
    except OSError:
        return path.is_dir() and os.access(path, os.R_OK) and not any(path.iterdir())
    process, _, command = holder.strip().partition(" ")
    return command.endswith(" up)") and _has_open(process, path / "lock") and not (path / READY).exists()


def _has_open(process: str, path: Path) -> bool:
    """Whether a process has a file open: its number alone may be anybody's by now."""
    try:
        return any(descriptor.readlink() == path for descriptor in Path("/proc", process, "fd").iterdir())
    except OSError:
        return False


def _hold(path: Path) -> int:
    """Make the folder `path` if it is missing and return its lock, held."""
    try:
        path.mkdir(parents=True)
        # PostgreSQL's account must pass through; what we put inside is closed by itself.
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    hand_over(path / "lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
        since = datetime.fromtimestamp(os.fstat(lock).st_mtime, tz=UTC)
        os.close(lock)
        raise DataDirectoryHeld(
            f"{path} is held by process {holder} since {since:%Y-%m-%d %H:%M:%S} UTC: use that server "
            f"('scout-server dsn --data {path}'), or stop it first."
        ) from None
    (path / READY).unlink(missing_ok=True)
    os.ftruncate(lock, 0)
    # Program and command only: further arguments may be secrets.
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    os.pwrite(lock, f"{os.getpid()} ({command})\n".encode(errors="replace"), 0)
    return lock
