"""Files that must survive a power cut.

A rename or a new name is durable only once the folder that holds it was synced.
"""

import os
from pathlib import Path


def sync_folder(folder: bytes) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_safely(path: bytes, content: bytes, mode: int = 0o640, owner: tuple[int, int] | None = None) -> None:
    """Write a file so that after a cut at any moment it is there whole, as before, or not at all.

    Its mode is `mode`, whatever the process's umask, and `owner` its account and group, for who may give files away.
    """
    temporary = path + b".tmp"
    # Root may write into a folder of the agent's account, which must not lead it elsewhere.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        if owner is not None:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path) or b".")


def signature_of(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is replaced or written; None when it can't be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
