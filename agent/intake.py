"""What a source hands over, and what it may rely on.

`Store.append` returns once records and file notes are durable together; when it raises LocalFault, nothing
of them is. A source removes nothing of the till's before that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TakenFile:
    """A file in processing/, and how many of its bytes are in the spool with the records of one append."""

    name: bytes
    bytes_taken: int


class Store(Protocol):
    """The spool, as a source sees it."""

    def append(self, payloads: Sequence[bytes], taken: Sequence[TakenFile] = ()) -> int:
        """Store payloads, each one line of valid JSON, with the notes of their files; return how many."""

    def bytes_taken(self, name: bytes) -> int | None:
        """How much of a file is stored already; None when nothing was noted."""

    def taken_files(self) -> list[bytes]:
        """The files whose notes are still kept."""

    def release_files(self, names: Sequence[bytes]) -> None:
        """Drop the notes of files that are gone for good."""
