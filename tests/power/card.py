"""A card whose power can be cut: ext4 on a loop device, shut down in the middle of whatever is being written.

May be relied on: after `cut` nothing that had not been flushed is on the card any more, and every call on it fails
until `insert` mounts it again. Nothing of the machine's own file systems is touched.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from agent_kit import until

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_FLUSH = struct.pack("I", 2)
SIZE_BYTES = 512 * 1024 * 1024


class Card:
    """One file system of its own, in one file."""

    def __init__(self, home: Path) -> None:
        self._image = home / "card.img"
        self.path = home / "card"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", str(self._image)], check=True)

    def insert(self) -> None:
        """Mount it; ext4 replays its journal, as at a boot."""
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)

    def cut(self) -> None:
        """Cut the power: what was not flushed is gone."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, NO_FLUSH)
        finally:
            os.close(folder)

    def throw_away(self) -> None:
        """Free its room. It is removed before."""
        self._image.unlink()

    def remove(self) -> None:
        """Unmount it, once nobody uses it any more, and make sure that it is gone: else nothing would be forgotten."""
        until(self._unmounted, "the card can be unmounted")
        until(lambda: not self._loop_devices(), "nobody else holds the card mounted (make test-power sees to it)")

    def _unmounted(self) -> bool:
        done = subprocess.run(["umount", str(self.path)], capture_output=True, text=True, check=False)
        return done.returncode == 0 or not self.path.is_mount()

    def _loop_devices(self) -> str:
        command = ["losetup", "--associated", str(self._image)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write_durably(path: Path, content: bytes) -> None:
    """Hand in a file as a careful till does: written, flushed, renamed, and the folder flushed too."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
