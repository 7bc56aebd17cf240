"""How a content is known again, whatever its file is called and whichever inode it has.

May be relied on: a content fits its mark only if it is at least as long as what was taken, and the first and the
last PROOF_BYTES of that are the same bytes. A name proves nothing, for tills give it again; an inode alone proves
nothing either, for file systems do.

Where content is the only witness (a file of unknown inode that begins like one known), equal bytes must also say
enough: a till whose sales bear neither number nor time may well begin two days with the same lines. Until
SAYING_BYTES of lines that differ from one another are the same, that is chance, and both are taken.
"""

import hashlib
import os

from agent.intake import TailMark

PROOF_BYTES = 4096
SAYING_BYTES = 1024

_READ_BYTES = 1024 * 1024


def proof_at(descriptor: int, position: int) -> tuple[bytes, bytes]:
    """Hash what a file begins with and what lies just before `position`. Raises OSError."""
    head = _read(descriptor, 0, min(position, PROOF_BYTES))
    start = max(0, position - PROOF_BYTES)
    return _digest(head), _digest(_read(descriptor, start, position - start))


def fits(descriptor: int, mark: TailMark) -> bool:
    """Whether this file holds what was taken under this mark. Raises OSError."""
    return mark.bytes_taken == 0 or proof_at(descriptor, mark.bytes_taken) == (mark.head, mark.near)


def begin_alike(one: int, other: int, size: int) -> bool:
    """Whether two files are the same for `size` bytes; False when either is shorter. Raises OSError."""
    if min(os.fstat(one).st_size, os.fstat(other).st_size) < size:
        return False
    return proof_at(one, size) == proof_at(other, size)


def says_enough(descriptor: int, size: int) -> bool:
    """Whether the beginning of a file can't be the same as another's by chance. Raises OSError."""
    lines = set(_read(descriptor, 0, min(size, PROOF_BYTES)).split(b"\n"))
    return sum(map(len, lines)) >= SAYING_BYTES


def has_line(descriptor: int, size: int) -> bool:
    """Whether a file begins with a whole line, or with PROOF_BYTES of one. Raises OSError."""
    return size >= PROOF_BYTES or b"\n" in _read(descriptor, 0, size)


def first_beyond_nuls(descriptor: int, start: int, end: int) -> int:
    """Position of the first byte from `start` on that is not NUL, or `end`. Raises OSError.

    A till that doesn't append but writes at its own position leaves as many in front as were truncated.
    """
    while start < end:
        part = _read(descriptor, start, min(_READ_BYTES, end - start))
        rest = part.lstrip(b"\0")
        if rest or not part:
            return start + len(part) - len(rest)
        start += len(part)
    return end


def _read(descriptor: int, start: int, size: int) -> bytes:
    return os.pread(descriptor, size, start) if size else b""


def _digest(part: bytes) -> bytes:
    return hashlib.sha256(part).digest()[:16]
