"""From bytes to lines: what an object or a posted body holds, and what of it is refused.

Pure: nothing here knows a database or a bucket. May be relied on:
- A body is taken line by line: one bad line becomes a Refused, and its neighbours stay Lines.
- A batch is taken only if hash, number of lines and every seq are those of its name; else it is Unreadable
  as a whole, for nobody can say which lines are the device's own.
- Whatever the bytes, the outcome is a Delivery or Unreadable. No reason quotes what a line holds.
- Memory is bounded: expanding stops at a limit.
"""

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol

import msgspec
import orjson
import zstandard

from server.errors import ServerError
from wire.batch import BatchName, NotABatchName, content_hash
from wire.device import device_id_problem
from wire.framing import Piece, RefusedBody, split_body, split_lines
from wire.record import Record, RefusedLine, RefusedPayload, from_line, parse_payload

Encoding = Literal["plain", "gzip", "zstd"]

BATCH_BYTES_MAX = 64 * 1024 * 1024
"""A batch has 1 MiB of text and one record more at most; the rest is room for agents yet to come."""

FOREIGN_BYTES_MAX = 256 * 1024 * 1024
"""Expanded. The bucket takes 50 MiB an object, and sales shrink to about a fifth: much more is a bomb."""

_STEP_BYTES = 1024
"""Compressed bytes expanded at once: however dense, they can't overshoot the limit by more than 32 MiB."""

_CALLS_ITSELF_A_BATCH = re.compile(r"[0-9a-f]{16}-\d+-\d+-[0-9a-f]{16}[^/]*\.jsonl\.gz", re.IGNORECASE)


class Unreadable(ServerError):
    """This object or body can't be read; nothing of it may be taken."""


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
    """A line that was refused as data, to be held in quarantine. `seq` is known within a batch only."""

    line: int
    reason: str
    raw: bytes
    seq: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one object or posted body holds. `name` is set for a batch of the agent's, and only then."""

    bucket: str
    key: str
    version: str
    device_id: str
    name: BatchName | None
    sha256: str  # of the uncompressed content, hex
    bytes: int  # uncompressed
    lines: tuple[Line, ...]
    refused: tuple[Refused, ...]
    captured_at: str | None = None  # when intake saw these lines, where they don't say so themselves
    clock: str | None = None  # "file": captured_at is when an imported file was written, and the lines may know better


def read_object(key: str, stored: bytes, *, bucket: str, version: str) -> Delivery:
    """Read an object as its key says: a batch, or `DAY/DEVICE/FILE` ending in .jsonl, .json, .gz or .zst.

    Raises Unreadable.
    """
    try:
        name = BatchName.parse(key)
    except NotABatchName as problem:
        if _CALLS_ITSELF_A_BATCH.search(key):
            raise Unreadable(f"it is called like a batch, but its name is none: {problem}") from None
    else:
        jsonl = expand(stored, "gzip", BATCH_BYTES_MAX)
        return read_batch(jsonl, name, bucket=bucket, key=key, version=version)
    device_id = device_of(key)
    form, encoding = _form_of(key)
    body = expand(stored, encoding, FOREIGN_BYTES_MAX)
    return read_foreign(body, lines_only=form == "jsonl", bucket=bucket, key=key, version=version, device_id=device_id)


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
    sha256 = content_hash(jsonl)
    if not sha256.startswith(name.hash):
        raise Unreadable(f"its content is not what its name says: the hash begins {sha256[:16]}, not {name.hash}")
    texts = jsonl.split(b"\n")
    if texts.pop():
        raise Unreadable("its last line does not end")
    if len(texts) != name.rows:
        raise Unreadable(f"it has {len(texts)} lines, and its name says {name.rows}")
    lines, refused = [], []
    for number, text in enumerate(texts, start=1):
        seq = name.first_seq + number - 1
        try:
            record = from_line(text)
        except RefusedLine as problem:
            refused.append(Refused(number, str(problem), text, seq))
            continue
        if record.seq != seq:
            raise Unreadable(f"line {number} has seq {record.seq}, and its name says {seq}")
        claimed = _text_of(bytes(_claim_of.decode(record.payload).device_id))
        lines.append(Line(number, record.payload, record, None, _if_other(claimed, name.device_id)))
    return Delivery(bucket, key, version, name.device_id, name, sha256, len(jsonl), tuple(lines), tuple(refused))


def read_foreign(body: bytes, *, lines_only: bool, bucket: str, key: str, version: str, device_id: str) -> Delivery:
    """Read what others upload or post: JSONL, or (unless `lines_only`) also one object or an array.

    Never raises: a body that can't be divided is one Refused that holds all of it.
    """
    lines, refused = [], []
    try:
        pieces = split_lines(body) if lines_only else split_body(body)
    except RefusedBody as problem:
        pieces = iter(())
        refused.append(Refused(problem.line, problem.reason, body, None))
    for place, piece in enumerate(pieces, start=1):
        try:
            transaction = parse_payload(piece.text)
        except RefusedPayload as problem:
            refused.append(Refused(piece.line, str(problem), piece.text, None))
            continue
        claimed = _if_other(transaction.get("device_id"), device_id)
        lines.append(Line(piece.line, piece.text, None, _identity(key, place, piece, transaction), claimed))
    sha256 = hashlib.sha256(body).hexdigest()
    return Delivery(bucket, key, version, device_id, None, sha256, len(body), tuple(lines), tuple(refused))


def expand(body: bytes, encoding: Encoding, bytes_max: int) -> bytes:
    """Undo `encoding`; raise Unreadable when the body is cut off, damaged or larger than `bytes_max`."""
    if encoding == "plain":
        if len(body) > bytes_max:
            raise Unreadable(f"it is larger than {bytes_max} bytes")
        return body
    expanded, position, rest = bytearray(), 0, memoryview(body)
    while True:  # one gzip member or zstd frame each time round: several in a row are one content
        frame = _START[encoding]()
        while not frame.eof:
            step = rest[position : position + _STEP_BYTES]
            if not step:
                raise Unreadable(f"its {encoding} data is cut off")
            try:
                expanded += frame.decompress(step)
            except (zlib.error, zstandard.ZstdError):
                raise Unreadable(f"its {encoding} data is damaged near byte {position}") from None
            position += len(step) - len(frame.unused_data)
            if len(expanded) > bytes_max:
                raise Unreadable(f"it expands to more than {bytes_max} bytes")
        if position == len(body):
            return bytes(expanded)


class _Frame(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, /) -> bytes: ...


_START: dict[str, Callable[[], _Frame]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


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
    return claimed if isinstance(claimed, str) and claimed != device_id else None
