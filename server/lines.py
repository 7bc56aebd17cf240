r"""Lines out of pieces of text, however the text was cut into them.

May be relied on: the lines are those that `text.split(b"\n")` gives, but for an empty last one. Of a line that is
longer than the caller allows only the beginning is held: memory is bounded by that, and by the largest piece.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SLICE_BYTES = 64 * 1024
"""Divided at once: lines take memory for each beside their bytes, and a piece may hold millions of them."""

HEAD_BYTES = 1024
"""Of a line that is too long: enough to see what somebody took for a line."""


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line of more than `bytes_max` bytes. `sha256` is of all of it."""

    head: bytes
    line_bytes: int
    sha256: bytes
    bytes_max: int


def lines_of(pieces: Iterable[bytes], bytes_max: int) -> Iterator[bytes | Overlong]:
    """Yield the lines, without their line feeds."""
    begun = _Begun(bytes_max)
    for piece in _slices(pieces):
        first, *others = piece.split(b"\n")
        begun.add(first)
        if not others:
            continue
        yield begun.ended()
        last = others.pop()
        for text in others:
            if len(text) <= bytes_max:
                yield text
            else:
                begun.add(text)
                yield begun.ended()
        begun.add(last)
    if begun.bytes:
        yield begun.ended()


def _slices(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) <= _SLICE_BYTES:
            yield piece
        else:
            yield from (piece[start : start + _SLICE_BYTES] for start in range(0, len(piece), _SLICE_BYTES))


class _Begun:
    """A line of which the end has not come yet."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._begin()

    def _begin(self) -> None:
        self.bytes = 0
        self._text = bytearray()
        self._overlong = hashlib.sha256()

    def add(self, part: bytes) -> None:
        """Go on; once the line is too long, with its hash alone."""
        if self.bytes <= self._bytes_max:
            self._text += part
            if len(self._text) > self._bytes_max:
                self._overlong.update(self._text)
                del self._text[min(HEAD_BYTES, self._bytes_max) :]
        else:
            self._overlong.update(part)
        self.bytes += len(part)

    def ended(self) -> "bytes | Overlong":
        """Give the line, and begin the next."""
        line: bytes | Overlong = bytes(self._text)
        if self.bytes > self._bytes_max:
            line = Overlong(bytes(self._text), self.bytes, self._overlong.digest(), self._bytes_max)
        self._begin()
        return line
