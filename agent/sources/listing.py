"""The files of a folder as they are listed, opened and synced.

May be relied on: nothing that isn't a file right in the folder is listed, and what is opened is the file that was
listed: no symbolic link is followed, and another file that took the name meanwhile is refused.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

SUFFIX = b".jsonl"

_NOTHING_TO_SYNC = {errno.EROFS, errno.EINVAL}
"""What is read-only, or can't be synced at all, isn't made more durable by waiting."""

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as the folder lists it."""

    path: bytes
    name: bytes
    inode: int
    size: int
    signature: Signature

    @property
    def is_tills(self) -> bool:
        """Whether a till's file begins under such a name."""
        return self.name.endswith(SUFFIX) and not self.name.startswith(b".")

    def originality(self) -> tuple[int, int, int]:
        """Of two files with one content the lower one is the original: longer, earlier, or of a shorter name."""
        return -self.size, self.signature[2], len(self.name)


def list_files(folder: bytes, known_names: Mapping[int, bytes]) -> dict[int, Entry]:
    """List the files right in a folder by inode. Raises OSError.

    Of a file's several names that one counts by which it is known, else one under which a till's file begins.
    """
    found: dict[int, Entry] = {}
    with os.scandir(folder) as listing:
        for listed in listing:
            try:
                status = listed.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                entry = Entry(listed.path, listed.name, inode_of(status), status.st_size, signature_of(status))
                known = known_names.get(entry.inode)
                if entry.inode not in found or (entry.name == known if known else entry.is_tills):
                    found[entry.inode] = entry
    return found


def inode_of(status: os.stat_result) -> int:
    """A file's inode as SQLite can store it. What that makes equal, the content tells apart."""
    return status.st_ino & (2**63 - 1)


def open_file(path: bytes, inode: int) -> int:
    """Open the file that was listed. Raises OSError when it can't be read or something else lies there now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if inode_of(os.fstat(descriptor)) != inode:
        os.close(descriptor)
        raise FileNotFoundError
    return descriptor


def signature_of(status: os.stat_result) -> Signature:
    """What changes when a file does."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sync_file(descriptor: int) -> None:
    """Put on the card what a file holds and how long it is. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOTHING_TO_SYNC:
            raise
