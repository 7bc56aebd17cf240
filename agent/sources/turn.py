"""One turn at a file that a till appends to: what of it can be taken now.

May be relied on
- A line is taken only when its line feed is there; the last one of a file that is final also without.
- A turn holds no more than TURN_BYTES in memory. Of a line that is longer than that the beginning is refused, the
  rest skipped in later turns, and the next line taken.
- NUL bytes before a line, as a power cut or a truncation leaves them, are named as refused; the line behind them is
  taken. They are skipped only together with that line: what is NUL today may be written tomorrow.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent.intake import TailMark
from agent.sources.proof import first_beyond_nuls, fits, proof_at
from agent.sources.rejected import Refused, judge
from wire.framing import Piece, split_lines
from wire.record import PAYLOAD_BYTES_MAX

TURN_BYTES = 2 * PAYLOAD_BYTES_MAX

_NUL = b"\0"
_TOO_LONG = f"longer than {PAYLOAD_BYTES_MAX} bytes; only its beginning is kept here"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took, and the mark behind it."""

    mark: TailMark
    payloads: list[bytes] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def take_turn(descriptor: int, mark: TailMark, limit: int, *, is_final: bool) -> Turn | None:
    """Read on behind a mark, up to `limit`; None when nothing can be taken yet. Raises OSError."""
    start = mark.bytes_taken
    chunk = _read(descriptor, start, limit)
    if chunk.startswith(_NUL) and not mark.skips_line:
        start = first_beyond_nuls(descriptor, start, limit)
        chunk = _read(descriptor, start, limit)
    is_last = is_final and start + len(chunk) == limit
    turn = _skip(mark, chunk) if mark.skips_line else _take(mark, start - mark.bytes_taken, chunk, is_last=is_last)
    if turn.mark.bytes_taken == mark.bytes_taken:
        return None
    head, near = proof_at(descriptor, turn.mark.bytes_taken)
    # Read once more: what is truncated and written anew meanwhile must not be mixed with what was.
    if _read(descriptor, start, start + len(chunk)) != chunk or not fits(descriptor, mark):
        return None
    return replace(turn, mark=replace(turn.mark, head=head, near=near))


def _skip(mark: TailMark, chunk: bytes) -> Turn:
    """Go on within a line that was refused for its length."""
    end = chunk.find(b"\n") + 1
    if not end:
        return Turn(replace(mark, bytes_taken=mark.bytes_taken + len(chunk)))
    return Turn(replace(mark, bytes_taken=mark.bytes_taken + end, lines_taken=mark.lines_taken + 1, skips_line=False))


def _take(mark: TailMark, nuls: int, chunk: bytes, *, is_last: bool) -> Turn:
    """Take the whole lines of a chunk, before which some NULs were left out."""
    line, start = mark.lines_taken + 1, mark.bytes_taken + nuls
    end = len(chunk) if is_last else chunk.rfind(b"\n") + 1
    if not end and len(chunk) == TURN_BYTES:
        refused = [*_nuls_refused(line, nuls), Refused(line, _TOO_LONG, chunk[:PAYLOAD_BYTES_MAX])]
        return Turn(replace(mark, bytes_taken=start + len(chunk), skips_line=True), refused=refused)
    if not end and not is_last:
        return Turn(mark)
    payloads, refused = _divide(chunk[:end], line)
    return Turn(
        replace(mark, bytes_taken=start + end, lines_taken=mark.lines_taken + chunk.count(b"\n", 0, end)),
        payloads,
        [*_nuls_refused(line, nuls), *refused],
    )


def _divide(lines: bytes, first_line: int) -> tuple[list[bytes], list[Refused]]:
    pieces: list[Piece] = []
    refused: list[Refused] = []
    for piece in split_lines(lines, first_line):
        text = piece.text.lstrip(_NUL)
        refused += _nuls_refused(piece.line, len(piece.text) - len(text))
        if text:
            pieces.append(Piece(piece.line, text))
    payloads, bad = judge(pieces)
    return payloads, refused + bad


def _nuls_refused(line: int, count: int) -> Iterator[Refused]:
    if count:
        yield Refused(line, f"{count} NUL bytes before it, as a power cut leaves them; they are not kept", b"")


def _read(descriptor: int, start: int, limit: int) -> bytes:
    return os.pread(descriptor, min(TURN_BYTES, limit - start), start) if start < limit else b""
