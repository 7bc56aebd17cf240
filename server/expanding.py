"""What was compressed, undone piece by piece.

May be relied on: what comes out is the whole text, or Unreadable is raised, at the latest at the end. Of pieces of a
usual size never more than 32 MiB come out at once, and never more than the caller allows in all.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import zstandard

from server.errors import ServerError

Encoding = Literal["plain", "gzip", "zstd"]

_STEP_BYTES = 1024
"""Compressed bytes expanded at once: however dense, they can't overshoot a limit by more than 32 MiB."""


class Unreadable(ServerError):
    """This object or body can't be read; nothing of it may be taken."""


def expand(body: bytes, encoding: Encoding, bytes_max: int) -> bytes:
    """Undo `encoding`; raise Unreadable when the body is cut off, damaged or larger than `bytes_max`."""
    return b"".join(expanded((body,), encoding, bytes_max))


def expanded(stored: Iterable[bytes], encoding: Encoding, bytes_max: int) -> Iterator[bytes]:
    """Undo `encoding` as the pieces come; raise Unreadable as `expand` does, perhaps after much was given."""
    pieces = _within(bytes_max, stored, "it is larger than")
    if encoding == "plain":
        return pieces
    return _within(bytes_max, _unpacked(pieces, encoding), "it expands to more than")


def _within(bytes_max: int, pieces: Iterable[bytes], saying: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise Unreadable(f"{saying} {bytes_max} bytes")
        yield piece


def _unpacked(stored: Iterable[bytes], encoding: Encoding) -> Iterator[bytes]:
    position, frame = 0, _START[encoding]()
    for piece in stored:
        for start in range(0, len(piece), _STEP_BYTES):
            step = piece[start : start + _STEP_BYTES]
            while step:
                if frame.eof:
                    frame = _START[encoding]()  # several gzip members or zstd frames in a row are one content
                try:
                    text = frame.decompress(step)
                except (zlib.error, zstandard.ZstdError):
                    raise Unreadable(f"its {encoding} data is damaged near byte {position}") from None
                position += len(step) - len(frame.unused_data)
                step = frame.unused_data
                yield text
    if not frame.eof:
        raise Unreadable(f"its {encoding} data is cut off")


class _Frame(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


_START: dict[str, Callable[[], _Frame]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
