"""Small real file systems that tests fill, break, mend, or cut off from power. All of it needs root."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_SHUTDOWN = 0x8004587D
_NO_FLUSH = (2).to_bytes(4, "little")


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class SmallDisk:
    """An ext4 on a file, so many megabytes small."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._image = folder / "card.img"
        self.mount = folder / "card"
        self.mount.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))

    def up(self) -> None:
        """Mount it so that it turns read-only at its first error, as a dying card does."""
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.mount))

    def down(self) -> None:
        """Take it away."""
        _run("umount", str(self.mount))

    def fail(self) -> None:
        """Let the file system meet an error."""
        device = Path(_run("findmnt", "-no", "SOURCE", str(self.mount)).strip()).name
        (Path("/sys/fs/ext4") / device / "trigger_fs_error").write_text("1")

    def reboot(self) -> None:
        """Take it down, check it, and mount it again."""
        self.down()
        done = subprocess.run(["fsck.ext4", "-p", "-f", str(self._image)], check=False, capture_output=True)
        assert done.returncode in (0, 1), done.stdout  # 1: errors corrected
        self.up()


@contextmanager
def a_small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Give a small disk, mounted."""
    disk = SmallDisk(folder, megabytes)
    disk.up()
    try:
        yield disk
    finally:
        disk.down()


def fill(folder: Path) -> Path:
    """Fill the disk of a folder with something else; return the file to remove.

    All at once: what the agent then gives up for its delivery is not taken too.
    """
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    with ballast.open("wb") as file:
        while free > 0:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free)
                break
            free -= 1 << 14
    assert free > 0
    return ballast


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
