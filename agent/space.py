"""Room on the card: how much the spool may take, and what is kept back so that delivery always works.

May be relied on
- Sizes are asked of the file system each time, WAL included: there is no counter that could drift.
- Intake is refused before the limit is reached, and by so much as the reserve holds: settling and forgetting
  need pages too. The reserve is also a file, `spool.reserve`, for a disk that others fill: it is released when
  delivery would fail for want of room, and made again when there is room for it twice.
- `limits` is one frozen value and may be replaced while everything runs.

What a shortage costs is told once each time that it changes, and so is its end.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.config import Config, reserve_bytes, spool_bytes_least

LINE_OVERHEAD_BYTES = 256
"""What a record adds to its payload: id, times, boot."""

WRITTEN_TIMES = 2
"""What is appended stands in the WAL and, after a checkpoint, in the database too."""

AMPLE_PART = 8
"""A shortage is over once an eighth of the limit is free: one forgotten batch must not end it."""


class Shortage(Enum):
    """What a want of room costs."""

    NONE = 0
    FORGETTING = 1  # settled batches are forgotten before their time
    REFUSING = 2  # intake is refused


Told = Callable[[Shortage, str], None]


@dataclass(frozen=True, slots=True)
class SpaceLimits:
    """How much the spool may take of a disk."""

    bytes_max: int  # all of the spool's files, the reserve included
    disk_free_bytes_min: int
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """What is taken and what is free at one moment."""

    limits: SpaceLimits
    spool_bytes: int  # database and WAL
    disk_free_bytes: int  # less what the reserve still lacks

    def refusal(self, wanted_bytes: int) -> str | None:
        """Why so many bytes more can't be taken in, with numbers and what to do; None when they can."""
        limit = self.limits.bytes_max - self.limits.reserve_bytes
        if self.spool_bytes + wanted_bytes > limit:
            return (
                f"the spool takes {_mb(self.spool_bytes)} of the {_mb(limit)} that spool.bytes_max leaves for sales, "
                f"and {_mb(wanted_bytes)} more are wanted. Nothing undelivered is dropped: sales stay where they are "
                "and are taken by themselves once receipts arrive. Check this shop's internet connection, or raise "
                "spool.bytes_max"
            )
        if self.disk_free_bytes - wanted_bytes < self.limits.disk_free_bytes_min:
            return (
                f"the disk has {_mb(max(0, self.disk_free_bytes))} free, {_mb(wanted_bytes)} are wanted and "
                f"spool.disk_free_bytes_min = {_mb(self.limits.disk_free_bytes_min)} must stay free. Sales stay "
                "where they are and are taken by themselves once there is room. Remove what else lies on this disk"
            )
        return None

    @property
    def is_ample(self) -> bool:
        """Whether a shortage may be called over."""
        spare = (self.limits.bytes_max - self.limits.reserve_bytes) // AMPLE_PART
        return self.refusal(min(spare, max(self.limits.disk_free_bytes_min, self.limits.reserve_bytes))) is None


class Space:
    """The room of one spool. Its threads share one of these."""

    def __init__(self, spool_file: Path, limits: SpaceLimits, told: Told = lambda _shortage, _why: None) -> None:
        self.limits = limits
        self._files = (spool_file, spool_file.with_name(spool_file.name + "-wal"))
        self._reserve = spool_file.with_name("spool.reserve")
        self._told = told
        self._shortage = Shortage.NONE
        self._lock = threading.Lock()

    @property
    def is_short(self) -> bool:
        """Whether room was wanting lately."""
        return self._shortage is not Shortage.NONE

    @property
    def is_refusing(self) -> bool:
        """Whether intake was refused lately, and not heard since."""
        return self._shortage is Shortage.REFUSING

    def room(self) -> Room:
        """Measure. Raises OSError when the disk can't be asked."""
        lacking = self.limits.reserve_bytes - size_of(self._reserve)
        return Room(self.limits, sum(map(size_of, self._files)), disk_free_bytes(self._reserve.parent) - lacking)

    def note(self, shortage: Shortage, why: str = "") -> None:
        """Tell what the want of room costs now, when that changes."""
        with self._lock:
            changed, self._shortage = shortage is not self._shortage, shortage
        if changed:
            self._told(shortage, why)

    def keep_reserve(self) -> None:
        """Release the reserve when delivery may need it; make it again when there is room for it twice.

        Raises OSError when the disk can't be asked, or written.
        """
        present, free = size_of(self._reserve), disk_free_bytes(self._reserve.parent)
        wanted = self.limits.reserve_bytes
        if present and free < wanted:
            self._reserve.unlink(missing_ok=True)
        elif present < wanted and free >= 2 * wanted + self.limits.disk_free_bytes_min:
            _allocate(self._reserve, wanted)

    def notice_ampleness(self) -> None:
        """Call a shortage over when it is. Raises OSError when the disk can't be asked."""
        if self.is_short and self.room().is_ample:
            self.note(Shortage.NONE)


def space_of(config: Config, told: Told = lambda _shortage, _why: None) -> Space:
    """The room that a config gives its spool, as the disk is now. Raises OSError when the disk can't be asked."""
    return Space(config.spool_file, limits_of(config), told)


def limits_of(config: Config) -> SpaceLimits:
    """The limits of a config. spool.bytes_max = 0 means half of what the disk has for the spool now.

    That is half of what is free and what the spool takes already, so a restart does not change it much.
    """
    bytes_max = config.spool.bytes_max
    if not bytes_max:
        folder = config.spool_file.parent
        taken = sum(size_of(folder / name) for name in ("spool.db", "spool.db-wal", "spool.reserve"))
        bytes_max = max(spool_bytes_least(config), (disk_free_bytes(folder) + taken) // 2)
    return SpaceLimits(bytes_max, config.spool.disk_free_bytes_min, reserve_bytes(config))


def wanted_bytes(payload_bytes: int, rows: int) -> int:
    """How much room so many payloads may take."""
    return WRITTEN_TIMES * (payload_bytes + rows * LINE_OVERHEAD_BYTES)


def disk_free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder that may still have to be made."""
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def size_of(file: Path) -> int:
    """How long a file is; 0 when it isn't there. Asks without opening: SQLite's locks hang on that."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _allocate(file: Path, size: int) -> None:
    """Take blocks for real: a hole would be no reserve."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
    finally:
        os.close(descriptor)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
