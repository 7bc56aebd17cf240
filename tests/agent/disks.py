"""Disks for tests that need root: small, full, foreign, or cut off from power."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_SHUTDOWN = 0x8004587D
_NO_FLUSH = (2).to_bytes(4, "little")


@contextmanager
def tmpfs(place: Path, size: str = "16m") -> Iterator[Path]:
    """Mount a file system in memory; it is away again afterwards."""
    place.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield place
    finally:
        _run("umount", "--lazy", place)


class Card:
    """A disk whose power can be cut: what wasn't flushed by then is gone."""

    def __init__(self, image: Path, place: Path) -> None:
        self.place = place
        self._image = image
        image.touch()
        os.truncate(image, 64 * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-F", image)
        place.mkdir()
        self.mount()

    def mount(self) -> None:
        """Power comes back."""
        _run("mount", "-o", "loop", self._image, self.place)

    def unmount(self) -> None:
        """Take the card out, whoever still looks at it."""
        _run("umount", "--lazy", self.place)

    def cut(self) -> None:
        """Cut the power: from here on nothing reaches the disk."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_SHUTDOWN, _NO_FLUSH)
        finally:
            os.close(descriptor)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
