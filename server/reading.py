"""From bytes to lines: what an object or a posted body holds, and what of it is refused.

Pure: nothing here knows a database or a bucket. May be relied on:
- A body is taken line by line: one bad line becomes a Refused, and its neighbours stay Lines.
- A batch is taken only if hash, number of lines and every seq are those of its name; else it is Unreadable
  as a whole, for nobody can say which lines are the device's own.
- Whatever the bytes, they end with a Whole or are Unreadable. No reason quotes what a line holds.
- However an object was cut into pieces, the same comes out. Memory does not grow with it: it is expanded and
  divided as it comes, and what can't be (an array, a line) has a limit.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from typing import Any

import msgspec
import orjson

from server.expanding import Encoding, Unreadable, expanded
from server.lines import Overlong, lines_of
from wire.batch import BatchName, NotABatchName
from wire.device import device_id_problem
from wire.framing import BLANK, BYTE_ORDER_MARK, Piece, RefusedBody, is_json, split_body, split_lines
from wire.record import Record, RefusedLine, RefusedPayload, from_line, parse_payload

BATCH_BYTES_MAX = 64 * 1024 * 1024
"""A batch has 1 MiB of text and one record more at most; the rest is room for agents yet to come."""

FOREIGN_BYTES_MAX = 256 * 1024 * 1024
"""Expanded. The bucket takes 50 MiB an object, and sales shrink to about a fifth: much more is a bomb."""

LINE_BYTES_MAX = 4 * 1024 * 1024
"""Of an object's line. A record's payload and its unknown fields have 1 MiB each at most."""

ARRAY_BYTES_MAX = 32 * 1024 * 1024
"""Expanded, of an object that is one JSON array: whether it is one can only be said of the whole."""

LINES_MAX = 10_000_000
"""Of an object, blank ones included: line feeds alone shrink to a thousandth, and each costs time."""

REFUSED_MAX = 100_000
"""Of an object's lines. What has more of them is no till's, and is held as one object instead."""

_CALLS_ITSELF_A_BATCH = re.compile(r"[0-9a-f]{16}-\d+-\d+-[0-9a-f]{16}[^/]*\.jsonl\.gz", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was accepted. A record has its identity within; any other line has `identity`."""

    line: int  # from 1
    payload: bytes
    record: Record | None
    identity: bytes | None  # sha256: the same (device, identity) is the same transaction
    claimed_device_id: str | None  # named in the payload, where it differs from the one that delivered it


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was refused as data, to be held in quarantine. `seq` is known within a batch only.

    `overlong`: `raw` is only the beginning of the line, and this the sha256 of all of it; its object holds it.
    """

    line: int
    reason: str
    raw: bytes
    seq: int | None
    overlong: bytes | None = None
    place: int | None = None  # of what others send: which transaction it would be, from 1


@dataclass(frozen=True, slots=True)
class Whole:
    """What reading ends with: all that came before it may be taken."""

    sha256: str  # of the uncompressed content, hex
    bytes: int  # uncompressed


@dataclass(frozen=True, slots=True)
class Content:
    """What one object or posted body holds, as it is read.

    `lines` can be gone through once. It ends with its only Whole, or raises Unreadable: then nothing of it may be
    taken. `name` is set for a batch of the agent's, and only then.
    """

    key: str
    device_id: str
    name: BatchName | None
    lines: Iterator[Line | Refused | Whole]
    captured_at: str | None = None  # when intake saw these lines, where they don't say so themselves
    clock: str | None = None  # "file": captured_at is when an imported file was written, and the lines may know better


@dataclass(frozen=True, slots=True)
class Delivery:
    """A Content that was read to its end and is held in memory."""

    bucket: str
    key: str
    version: str
    device_id: str
    name: BatchName | None
    sha256: str  # of the uncompressed content, hex
    bytes: int  # uncompressed
    lines: tuple[Line, ...]
    refused: tuple[Refused, ...]
    captured_at: str | None = None  # as in Content

    @property
    def content(self) -> Content:
        """Itself, to be gone through once."""
        lines = chain[Line | Refused | Whole](self.lines, self.refused, (Whole(self.sha256, self.bytes),))
        return Content(self.key, self.device_id, self.name, lines, self.captured_at)


def read_object(key: str, stored: bytes, *, bucket: str, version: str) -> Delivery:
    """Read an object that is held in memory; raise Unreadable."""
    return _delivery(content_of(key, (stored,)), bucket, version)


def content_of(key: str, stored: Iterable[bytes]) -> Content:
    """Read an object as its key says: a batch, or `DAY/DEVICE/FILE` ending in .jsonl, .json, .gz or .zst.

    Raises Unreadable for a key that says neither.
    """
    try:
        name = BatchName.parse(key)
    except NotABatchName as problem:
        if _CALLS_ITSELF_A_BATCH.search(key):
            raise Unreadable(f"it is called like a batch, but its name is none: {problem}") from None
    else:
        jsonl = expanded(stored, "gzip", BATCH_BYTES_MAX)
        return Content(key, name.device_id, name, _few_refused(_batch_lines(jsonl, name, LINE_BYTES_MAX)))
    device_id = device_of(key)
    form, encoding = _form_of(key)
    text = expanded(stored, encoding, FOREIGN_BYTES_MAX)
    lines = _foreign_lines(text, key, device_id, lines_only=form == "jsonl")
    return Content(key, device_id, None, _few_refused(lines))


def device_of(key: str) -> str:
    """Return the device whose folder the key lies in; raise Unreadable when it is in none."""
    day, _, rest = key.partition("/")
    device_id, _, file = rest.partition("/")
    if not _is_day(day) or not file or "/" in file:
        raise Unreadable("it does not lie in the folder of a day and a device: DAY/DEVICE/FILE")
    problem = device_id_problem(device_id)
    if problem:
        raise Unreadable(f"its folder names no device: {problem}")
    return device_id


def read_batch(jsonl: bytes, name: BatchName, *, bucket: str, key: str, version: str) -> Delivery:
    """Read a batch of the agent's from its uncompressed text; raise Unreadable unless it is what `name` says.

    A line that can't be a record is refused under the seq of its place: the hash proves that it is the
    device's own.
    """
    content = Content(key, name.device_id, name, _batch_lines((jsonl,), name, len(jsonl)))
    return _delivery(content, bucket, version)


def read_foreign(body: bytes, *, lines_only: bool, bucket: str, key: str, version: str, device_id: str) -> Delivery:
    """Read what others post: JSONL, or (unless `lines_only`) also one object or an array.

    Never raises: a body that can't be divided is one Refused that holds all of it.
    """
    pieces = split_lines(body) if lines_only else _document(body)
    whole = Whole(hashlib.sha256(body).hexdigest(), len(body))
    lines = chain[Line | Refused | Whole](_judged(pieces, key, device_id), (whole,))
    return _delivery(Content(key, device_id, None, lines), bucket, version)


def _delivery(content: Content, bucket: str, version: str) -> Delivery:
    """Read a content to its end; raise Unreadable."""
    lines: list[Line] = []
    refused: list[Refused] = []
    whole = None
    for item in content.lines:
        if isinstance(item, Line):
            lines.append(item)
        elif isinstance(item, Refused):
            refused.append(item)
        else:
            whole = item
    assert whole, "reading ends with a Whole or raises"
    named = (content.device_id, content.name, whole.sha256, whole.bytes)
    return Delivery(bucket, content.key, version, *named, tuple(lines), tuple(refused))


def _batch_lines(jsonl: Iterable[bytes], name: BatchName, bytes_max: int) -> Iterator[Line | Refused | Whole]:
    """Read a batch. Whether it is what its name says is known, and said, at its end."""
    measure = _Measure()
    problem = ""
    number = 0
    for number, text in _numbered(measure.passing(jsonl), bytes_max):
        seq = name.first_seq + number - 1
        if number > name.rows:
            continue  # counted alone: it may be any number of lines
        if isinstance(text, Overlong):
            yield _refused_overlong(number, text, seq)
            continue
        try:
            line = record_line(number, text, name.device_id)
        except RefusedLine as refused:
            yield Refused(number, str(refused), text, seq)
            continue
        if line.record and line.record.seq != seq:
            problem = problem or f"line {number} has seq {line.record.seq}, and its name says {seq}"
        yield line
    whole = measure.whole()
    if not whole.sha256.startswith(name.hash):
        problem = f"its content is not what its name says: the hash begins {whole.sha256[:16]}, not {name.hash}"
    elif measure.last not in (b"", b"\n"):
        problem = "its last line does not end"
    elif number != name.rows:
        problem = f"it has {number} lines, and its name says {name.rows}"
    if problem:
        raise Unreadable(problem)
    yield whole


def record_line(number: int, text: bytes, device_id: str) -> Line:
    """Read one line of a batch; raise RefusedLine."""
    record = from_line(text)
    claimed = _text_of(bytes(_claim_of.decode(record.payload).device_id))
    return Line(number, record.payload, record, None, _if_other(claimed, device_id))


def foreign_lines(text: bytes, key: str, device_id: str, *, line: int, place: int) -> Iterator[Line | Refused]:
    """Read a part of what others sent, which stood at this line and place of the object or post `key`."""
    for item in _judged(_document(text), key, device_id, place):
        yield replace(item, line=line + item.line - 1)


def _foreign_lines(
    text: Iterable[bytes], key: str, device_id: str, *, lines_only: bool
) -> Iterator[Line | Refused | Whole]:
    measure = _Measure()
    passing = measure.passing(text)
    yield from _judged(_lines(passing) if lines_only else _lines_or_document(passing), key, device_id)
    yield measure.whole()


def _judged(
    pieces: Iterable[Piece | Refused], key: str, device_id: str, first_place: int = 1
) -> Iterator[Line | Refused]:
    """Take or refuse each piece of what others send."""
    for place, piece in enumerate(pieces, start=first_place):
        if isinstance(piece, Refused):
            yield replace(piece, place=place)
            continue
        try:
            transaction = parse_payload(piece.text)
        except RefusedPayload as problem:
            yield Refused(piece.line, str(problem), piece.text, None, place=place)
            continue
        claimed = _if_other(transaction.get("device_id"), device_id)
        yield Line(piece.line, piece.text, None, _identity(key, place, piece, transaction), claimed)


def _numbered(text: Iterable[bytes], bytes_max: int) -> Iterator[tuple[int, bytes | Overlong]]:
    for number, line in enumerate(lines_of(text, bytes_max), start=1):
        if number > LINES_MAX:
            raise Unreadable(f"it has more than {LINES_MAX} lines, blank ones included")
        yield number, line


def _few_refused(lines: Iterable[Line | Refused | Whole]) -> Iterator[Line | Refused | Whole]:
    refused = 0
    for line in lines:
        refused += isinstance(line, Refused)
        if refused > REFUSED_MAX:
            raise Unreadable(f"more than {REFUSED_MAX} of its lines are no transactions")
        yield line


def _lines(text: Iterable[bytes]) -> Iterator[Piece | Refused]:
    """Divide JSONL as `split_lines` does."""
    for number, line in _numbered(text, LINE_BYTES_MAX):
        if isinstance(line, Overlong):
            yield _refused_overlong(number, line, None)
        elif stripped := (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip(BLANK):
            yield Piece(number, stripped)


def _lines_or_document(text: Iterator[bytes]) -> Iterator[Piece | Refused]:
    """Divide what is JSONL, an array or one object, as `split_body` does; raise Unreadable where it is too long."""
    body = bytearray()
    for piece in text:
        body += piece
        if len(body) > LINE_BYTES_MAX:
            break
    else:
        yield from _document(bytes(body))
        return
    head = bytes(body[:LINE_BYTES_MAX]).removeprefix(BYTE_ORDER_MARK).lstrip(BLANK)
    if head.startswith(b"["):
        for piece in chain((b"",), text):
            body += piece
            if len(body) > ARRAY_BYTES_MAX:
                raise Unreadable(
                    f"it is a JSON array of more than {ARRAY_BYTES_MAX} bytes: write it as JSONL, one transaction a "
                    "line, which may be larger"
                )
        yield from _document(bytes(body))
    else:
        first_line, newline, _ = head.partition(b"\n")
        if not newline or not is_json(first_line):
            raise Unreadable("it is neither JSONL nor a JSON array, and too long for one transaction")
        yield from _lines(chain((bytes(body),), text))


def _document(body: bytes) -> Iterator[Piece | Refused]:
    """Divide a body that is held in memory; one that can't be is one Refused that holds it."""
    try:
        yield from split_body(body)
    except RefusedBody as problem:  # before the first piece
        yield Refused(problem.line, problem.reason, body, None)


def _refused_overlong(number: int, line: Overlong, seq: int | None) -> Refused:
    reason = f"longer than {line.bytes_max} bytes: its beginning is held, its object has all {line.line_bytes}"
    return Refused(number, reason, line.head, seq, line.sha256)


class _Measure:
    """Takes hash, size and last byte of what passes through it."""

    def __init__(self) -> None:
        self.last = b""
        self._hash = hashlib.sha256()
        self._bytes = 0

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._hash.update(piece)
            self._bytes += len(piece)
            self.last = piece[-1:] or self.last
            yield piece

    def whole(self) -> Whole:
        return Whole(self._hash.hexdigest(), self._bytes)


class _Claim(msgspec.Struct):
    device_id: msgspec.Raw = msgspec.Raw(b"")


_claim_of = msgspec.json.Decoder(_Claim)


def _form_of(key: str) -> tuple[str, Encoding]:
    """Return "jsonl", "json" or "" (either), and the compression; raise Unreadable for another ending."""
    stem = key.lower()
    encoding: Encoding = "plain"
    if stem.endswith(".gz"):
        stem, encoding = stem.removesuffix(".gz"), "gzip"
    elif stem.endswith(".zst"):
        stem, encoding = stem.removesuffix(".zst"), "zstd"
    for form in ("jsonl", "json"):
        if stem.endswith(f".{form}"):
            return form, encoding
    if encoding == "plain":
        raise Unreadable("its name ends in none of .jsonl, .json, .gz and .zst")
    return "", encoding


def _is_day(text: str) -> bool:
    try:
        return str(date.fromisoformat(text)) == text  # Python also reads 20260120 and week dates
    except ValueError:
        return False


def _identity(key: str, place: int, piece: Piece, transaction: dict[str, Any]) -> bytes:
    """Tell the same transaction sent again from another one: by its own id, else by where it stood.

    The text counts either way: a file written anew under an old name holds other sales at the same places.
    `place` rather than the line: the elements of an array may share a line.
    """
    transaction_id = _id_of(transaction)
    origin = [transaction_id.encode()] if transaction_id else [key.encode(), b"%d" % place]
    return hashlib.sha256(b"\0".join([*origin, piece.text])).digest()


def _id_of(transaction: dict[str, Any]) -> str | None:
    """Return what the till calls the sale, as text; None when it gave no usable name."""
    for field in ("transaction_id", "id"):
        value = transaction.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _text_of(raw: bytes) -> str | None:
    return orjson.loads(raw) if raw[:1] == b'"' else None


def _if_other(claimed: object, device_id: str) -> str | None:
    if not isinstance(claimed, str) or claimed == device_id:
        return None
    return claimed.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL's texts have no NUL
