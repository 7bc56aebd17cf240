"""A file in a till's folder as it is followed, once its content has a mark."""

import os
from dataclasses import dataclass

from agent.intake import TailMark
from agent.sources.listing import Signature, open_file

FIRST_BYTES = 256
"""Kept in memory of each file: most files are told apart by them without being read again."""


@dataclass(slots=True)
class TailedFile:
    """A file whose content has a mark. Owns its descriptor."""

    path: bytes
    name: bytes
    mark: TailMark
    descriptor: int | None
    size: int = 0
    signature: Signature | None = None  # None: to be looked at
    since_s: float = 0.0  # since when it looks as it does
    is_believed: bool = False  # that it holds what its mark says, until it looks different
    is_gone: bool = False  # from the folder; what was written to it is read through the descriptor
    first: bytes = b""
    limit: int = 0  # may be read so far
    read_to: int = 0  # was read so far; no line behind its mark is whole
    finished_at: int = -1  # at this size what was left of it was taken as its last line
    turn: int = 0  # when it was read last, so that each has its turn

    @property
    def is_copy(self) -> bool:
        """Whether it is only known to begin like another file."""
        return self.mark.copy_of is not None

    @property
    def is_away(self) -> bool:
        """Whether it no longer bears the name under which the till wrote it."""
        return self.is_gone or self.name != self.mark.name

    @property
    def changed_ns(self) -> int:
        """When it was changed, by the file system's clock."""
        return self.signature[1] if self.signature else 0

    @property
    def has_news(self) -> bool:
        """Whether there is more of it than was read."""
        return not self.is_copy and self.size > self.read_to

    @property
    def has_rest(self) -> bool:
        """Whether it would have to be read once more if nothing came any more."""
        return not self.is_copy and self.size > self.mark.bytes_taken and self.finished_at != self.size

    def open(self) -> int:
        """Its descriptor, opened if it isn't. Raises OSError, also when another file has its name now."""
        if self.descriptor is None:
            self.descriptor = open_file(self.path, self.mark.inode)
        return self.descriptor

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
