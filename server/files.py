"""Files that survive a power cut: the old content or the new one, never half of it."""

import os
import tempfile
from pathlib import Path


def write_safely(path: Path, data: bytes, mode: int) -> None:
    """Replace `path` by `data` with the permissions `mode`; once this returns, it is on the disk.

    A reader sees the old content or the new one. Raises OSError and leaves the old content when the
    folder is missing, closed or full.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        hand_over(Path(temporary))
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def hand_over(path: Path) -> None:
    """As root, give `path` to whom its folder belongs: what root leaves there must not be closed to the server."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync_folder(path: Path) -> None:
    """Put the names in the folder `path` on the disk: a rename counts only after this.

    Raises OSError when the folder is missing or closed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
