"""`scout-agent add`: sales into the spool by hand, beside a running daemon or without one.

May be relied on
- What fits into `document_bytes_max` is stored in one commit, or nothing of it is.
- Anything longer must be JSONL. It is stored in groups of whole lines, one commit each, in memory that doesn't
  grow with it; so an intake beside it never waits for long. `Tally` says at any moment, to the line, how far that
  got: what is dealt with is never half stored, and the rest can be added from the next line on.
"""

import io
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import BinaryIO

from agent.errors import LocalFault
from agent.intake import Store
from wire.framing import Piece, RefusedBody, split_body, split_lines
from wire.record import PAYLOAD_BYTES_MAX, RefusedPayload, parse_payload

GROUP_BYTES = 4 * 1024 * 1024
GROUP_ROWS = 20_000
"""Of very short sales, which cost more in memory than their bytes."""


@dataclass(frozen=True, slots=True)
class RefusedSale:
    """What was not stored, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class Tally:
    """What an adding did so far."""

    rows: int = 0
    refused: int = 0
    line: int = 0  # this line and all before it are dealt with


def add_sales(
    store: Store,
    source: BinaryIO,
    tally: Tally,
    *,
    lines_only: bool,
    document_bytes_max: int,
    from_line: int = 1,
    told: Callable[[RefusedSale], None],
    moved: Callable[[int], None],
) -> None:
    """Store the sales of `source` and keep `tally`. Raises LocalFault, also for what is too long and no JSONL.

    `lines_only`: it is JSONL, so that a bad line can't spoil the others, as in the folder. `told` hears of each
    sale that was refused, `moved` of each piece of so many bytes that is dealt with.
    """
    head = source.read(document_bytes_max + 1)
    if len(head) <= document_bytes_max:
        try:
            pieces = list(split_lines(head) if lines_only else split_body(head))
        except RefusedBody as error:
            tally.refused += 1
            told(RefusedSale(error.line, error.reason))
            return
        _take(store, [piece for piece in pieces if piece.line >= from_line], tally, told)
        moved(len(head))
        return
    if not (lines_only or _begins_as_lines(head)):
        raise LocalFault(
            f"longer than folder.file_bytes_max = {document_bytes_max} and not JSONL, one sale a line: it would have "
            "to fit into memory. Split it, or write it as JSONL."
        )
    line = 1
    for group in _groups(_parts(head, source)):
        wanted = (piece for piece in split_lines(group, line) if piece.line >= from_line)
        while run := list(islice(wanted, GROUP_ROWS)):
            _take(store, run, tally, told)
        line += group.count(b"\n")
        moved(len(group))


def _take(store: Store, pieces: Sequence[Piece], tally: Tally, told: Callable[[RefusedSale], None]) -> None:
    """Store one run in one commit, and count it in the same breath."""
    payloads: list[bytes] = []
    refused: list[RefusedSale] = []
    for piece in pieces:
        try:
            parse_payload(piece.text)
        except RefusedPayload as error:
            refused.append(RefusedSale(piece.line, str(error)))
        else:
            payloads.append(piece.text)
    if pieces:
        with _uninterrupted():
            store.append(payloads)
            tally.rows += len(payloads)
            tally.refused += len(refused)
            tally.line = pieces[-1].line
    for sale in refused:
        told(sale)


def _begins_as_lines(head: bytes) -> bool:
    """Whether a long text is JSONL by its first line."""
    first, newline, _ = head.lstrip().partition(b"\n")
    try:
        parse_payload(first.strip())
    except RefusedPayload:
        return False
    return bool(newline)


def _parts(head: bytes, source: BinaryIO) -> Iterator[bytes]:
    return chain(iter(partial(io.BytesIO(head).read, GROUP_BYTES), b""), iter(partial(source.read, GROUP_BYTES), b""))


def _groups(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Runs of whole lines. Of a line too long to be a sale only as much is kept as tells that."""
    rest = b""
    for part in parts:
        whole, newline, rest = (rest + part).rpartition(b"\n")
        if newline:
            yield whole + newline
        rest = rest[: PAYLOAD_BYTES_MAX + 1]
    if rest:
        yield rest


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until what was stored is counted too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
