"""A record: one transaction of a till with the identity that intake gave it, and its form as a line.

May be relied on:
- A payload is the till's own text. `parse_payload` accepts or refuses it; nothing here rewrites it.
- `to_line` and `from_line` are each other's inverse, byte for byte in the payload.
- Fields of a line that this version doesn't know are kept in `extra`, never refused: a newer agent may
  talk to an older server.
- A refusal's reason names what is wrong and where, and never quotes the payload.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

PAYLOAD_BYTES_MAX = 1024 * 1024
"""A sale is a few hundred bytes. A larger limit would let one line outgrow the batch that carries it."""

DEPTH_MAX = 128
"""Deeper nesting is an attack or an accident; PostgreSQL and every later reader recurse over it."""

SEQ_MAX = 999_999_999_999
"""Twelve digits: what an object's name has room for."""

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)", re.ASCII)
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|([{\[])|[}\]]')
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BOOT = re.compile("[0-9A-Za-z-]{1,64}")
_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RefusedPayload(ValueError):
    """This text can't be a transaction."""


class RefusedLine(ValueError):
    """This line can't be a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction as it travels. Device and epoch stand in the batch's name, not in each line."""

    seq: int
    id: str  # UUIDv7, minted at intake
    captured_at: str  # when intake saw it by the device's clock: 2026-11-22T10:30:00.000Z
    clock: str  # synced | unsynced
    boot: str
    mono_ms: int  # milliseconds since that boot
    payload: bytes
    extra: bytes = b""  # unknown fields of the line as one JSON object, or empty


def parse_payload(text: bytes) -> dict[str, Any]:
    """Parse one transaction strictly; raise RefusedPayload with the reason.

    Refused: what is no JSON object, NaN and infinities, invalid UTF-8, lone surrogates, more than
    DEPTH_MAX levels, more than PAYLOAD_BYTES_MAX bytes. Accepted: duplicate keys (the last one counts).
    """
    if len(text) > PAYLOAD_BYTES_MAX:
        raise RefusedPayload(f"longer than {PAYLOAD_BYTES_MAX} bytes")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedPayload(f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise RefusedPayload("not a JSON object")
    # Counting brackets is cheap and settles all but the oddest payloads.
    if text.count(b"{") + text.count(b"[") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise RefusedPayload(f"nested deeper than {DEPTH_MAX} levels")
    return value


def to_line(record: Record) -> bytes:
    """Write a record as one line of a batch, without the line feed."""
    extra = b"," + record.extra[1:-1] if record.extra else b""
    return b'{"seq":%d,"id":"%s","captured_at":"%s","clock":"%s","boot":"%s","mono_ms":%d,"payload":%s%s}' % (
        record.seq,
        record.id.encode(),
        record.captured_at.encode(),
        record.clock.encode(),
        record.boot.encode(),
        record.mono_ms,
        record.payload,
        extra,
    )


def from_line(line: bytes) -> Record:
    """Read one line of a batch; raise RefusedLine with the reason. The payload is checked as at intake."""
    try:
        fields = {name: bytes(raw) for name, raw in _fields_of.decode(line).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RefusedLine(_why_no_object(line)) from None
    try:
        payload = fields.pop("payload")
        seq, mono_ms = _whole(fields.pop("seq")), _whole(fields.pop("mono_ms"))
        record_id, captured_at, clock, boot = (
            _text(fields.pop(name)) for name in ("id", "captured_at", "clock", "boot")
        )
    except KeyError as missing:
        raise RefusedLine(f"field {missing} is missing") from None
    if not 1 <= seq <= SEQ_MAX:
        raise RefusedLine(f"seq is not within 1..{SEQ_MAX}")
    if not _UUID.fullmatch(record_id):
        raise RefusedLine("id is not a UUID in small letters")
    if not _is_instant(captured_at):
        raise RefusedLine("captured_at is not an RFC 3339 time with an offset")
    if clock not in ("synced", "unsynced"):
        raise RefusedLine("clock is neither synced nor unsynced")
    if not _BOOT.fullmatch(boot) or not 0 <= mono_ms < 2**63:
        raise RefusedLine("boot or mono_ms is malformed")
    try:
        parse_payload(payload)
        if fields:
            parse_payload(extra := _joined(fields))
        else:
            extra = b""
    except RefusedPayload as refused:
        raise RefusedLine(f"payload {refused}") from None
    return Record(seq, record_id, captured_at, clock, boot, mono_ms, payload, extra)


def format_instant(at: datetime) -> str:
    """Write a moment as lines and reports carry it: UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _why_no_object(line: bytes) -> str:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return "not a JSON object"


def _whole(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 19:
        raise RefusedLine("seq or mono_ms is not a whole number")
    return int(raw)


def _text(raw: bytes) -> str:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, str):
        raise RefusedLine("id, captured_at, clock or boot is not text")
    return value


def _is_instant(text: str) -> bool:
    """Python's own reader alone would also let through forms and offsets that PostgreSQL refuses."""
    if not _INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _joined(fields: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(orjson.dumps(name) + b":" + raw for name, raw in fields.items()) + b"}"


def _depth(text: bytes) -> int:
    """Count levels in the text of valid JSON: the parsed value no longer has what a duplicate key hid."""
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[1]:
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in (b"}", b"]"):
            depth -= 1
    return deepest
