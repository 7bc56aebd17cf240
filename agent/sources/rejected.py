"""What can't be taken: judged line by line, and put where a person finds it.

May be relied on: what was refused and a `.reason.txt` beside it, which names file, line and reason and never the
content, are durable when `set_beside` returns. The same name written again replaces both: a source that is killed
before its commit repeats the name, and nothing lies there twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from agent.files import write_safely
from wire.framing import Piece
from wire.record import RefusedPayload, parse_payload

REASONS_LOGGED = 5
"""Of one file. All of them stand beside it."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refused:
    """A piece that can't be a transaction, with its line in the till's file."""

    line: int
    reason: str
    text: bytes


def judge(pieces: Iterable[Piece]) -> tuple[list[bytes], list[Refused]]:
    """Tell payloads from what can't be one."""
    payloads, refused = [], []
    for piece in pieces:
        try:
            parse_payload(piece.text)
        except RefusedPayload as error:
            refused.append(Refused(piece.line, str(error), piece.text))
        else:
            payloads.append(piece.text)
    return payloads, refused


def set_beside(path: bytes, original: bytes, refused: Sequence[Refused]) -> None:
    """Write what was refused of the file that the till calls `original`, and why. Raises OSError."""
    write_safely(path, b"\n".join(each.text for each in refused))
    explain(path, original, [(each.line, each.reason) for each in refused])


def explain(path: bytes, original: bytes, reasons: Sequence[tuple[int, str]]) -> None:
    """Write why beside what was refused, and log the first reasons. Raises OSError."""
    lines = [f"{shown(original)}, line {line}: {reason}" for line, reason in reasons]
    write_safely(path + b".reason.txt", "".join(f"{line}\n" for line in lines).encode())
    for line in lines[:REASONS_LOGGED]:
        log.warning("line_rejected", where=line)


def shown(name: bytes) -> str:
    """Write a file's name so that a log can carry it, whatever its bytes."""
    return name.decode("utf-8", "backslashreplace")
