"""What a source is, what it hands over, and what it may rely on.

`Store.append` returns once records and notes are durable together; when it raises LocalFault, nothing of them
is. A source removes nothing of the till's, and answers no till, before that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

Tally = Callable[[int, int], None]
"""Hears from a source how many records it took and how many lines it refused, once that is final."""


def no_tally(_taken: int, _refused: int) -> None:
    """Nobody counts."""


class Source(Protocol):
    """Where sales come from. Sources share one thread and one connection to the spool; none may block.

    A source with threads of its own has a connection of its own for them.
    """

    def start(self) -> None:
        """Prepare and listen. Raises LocalFault with what to mend."""

    def step(self) -> float:
        """Take what is ready; return in how many seconds to look again. Raises LocalFault."""

    def close(self) -> None:
        """Stop listening."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a source remembers of where records came from, committed with them.

    `statement` names the query of agent/sql/spool.sql that stores it; the fields are its parameters.
    """

    statement: ClassVar[str]


@dataclass(frozen=True, slots=True)
class TakenFile(Note):
    """A file in processing/, and how many of its bytes are in the spool with the records of one append."""

    statement: ClassVar[str] = "note_taken"

    name: bytes
    bytes_taken: int


@dataclass(frozen=True, slots=True)
class TakenPost(Note):
    """The Idempotency-Key of a post, with the sha256 of its expanded body; both are the sender's."""

    statement: ClassVar[str] = "note_post"

    key: str
    sha256: str
    noted_at: str | None  # None while the clock isn't synchronised


class Store(Protocol):
    """The spool, as every source sees it."""

    def append(self, payloads: Sequence[bytes], notes: Sequence[Note] = ()) -> int:
        """Store payloads, each one line of valid JSON, with notes of where they came from; return how many."""


class FolderStore(Store, Protocol):
    """The spool, as the folder source sees it."""

    def bytes_taken(self, name: bytes) -> int | None:
        """How much of a file is stored already; None when nothing was noted."""

    def taken_files(self) -> list[bytes]:
        """The files whose notes are still kept."""

    def release_files(self, names: Sequence[bytes]) -> None:
        """Drop the notes of files that are gone for good."""


class PostStore(Store, Protocol):
    """The spool, as the local HTTP source sees it."""

    def posts(self) -> dict[str, str]:
        """The Idempotency-Keys that are remembered, each with the hash of what came under it."""

    def forget_posts(self, kept_max: int, before: str | None) -> int:
        """Forget the oldest keys: beyond a number, or noted before a moment; return how many."""


@dataclass(frozen=True, slots=True)
class TailMark(Note):
    """How far one content that a till appends to is in the spool, and how to know it again.

    The columns are explained in agent/sql/020_tailed.sql.
    """

    statement: ClassVar[str] = "note_tail_mark"

    number: int
    inode: int
    name: bytes
    bytes_taken: int = 0
    lines_taken: int = 0
    skips_line: bool = False
    head: bytes = b""
    near: bytes = b""
    copy_of: int | None = None


@dataclass(frozen=True, slots=True)
class DroppedMark(Note):
    """A mark that is needed no more."""

    statement: ClassVar[str] = "drop_tail_mark"

    number: int


class TailStore(Store, Protocol):
    """The spool, as the tail source sees it."""

    def tail_marks(self) -> list[TailMark]:
        """Every mark that is kept, in the order of their numbers."""
