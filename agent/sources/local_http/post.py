"""From a posted body to payloads: read as the server's ingest endpoint reads it, so that clients need no change.

Pure. May be relied on:
- Whatever the bytes, the outcome is a Post or Refused, and no reason quotes what a line holds.
- Every line is in one of `payloads` and `rejected`. A body that is no transaction at all is Refused.
- Memory is bounded: expanding and dividing stop at a limit.

Departures, all said to the sender: zstd is refused, for there is no decoder on the device; what expands too far is
413 rather than 400, for the limit here is lower and the sender may keep it; and a batch of an agent's is refused, for
an agent that was given its own address would fill its spool with itself.
"""

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.sources.local_http.messages import Refused
from wire.batch import BatchName, NotABatchName
from wire.framing import Piece, RefusedBody, split_body, split_lines
from wire.receipt import RejectedLine
from wire.record import RefusedPayload, parse_payload

LINES_MAX = 20_000
"""In one post. An answer names every line that it rejects, and a sale of a hundred bytes is a small one."""

ARRAY_COMMAS_MAX = 10 * LINES_MAX
"""In a post that is an array: all its elements take memory before they can be counted."""

KEY_BYTES_MAX = 255
"""Of an Idempotency-Key, as on the server."""

LINES_TYPES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"  # a byte order mark, blanks
_STEP_BYTES = 1024  # compressed bytes expanded at once: however dense, they give 1 MiB at most


@dataclass(frozen=True, slots=True)
class Form:
    """How a body is to be read, by its headers."""

    encoding: str
    lines_only: bool
    key: str | None


@dataclass(frozen=True, slots=True)
class Post:
    """What a body holds. `sha256` is of its expanded bytes, in hex."""

    payloads: tuple[bytes, ...]
    rejected: tuple[RejectedLine, ...]
    sha256: str
    key: str | None


def form_of(headers: Mapping[str, str]) -> Form:
    """Read the headers, before the body is; raise Refused when they ask for what we don't do."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding == "zstd":
        raise _no_zstd()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(415, "Content-Encoding is gzip, or left out.")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return Form(encoding, content_type in LINES_TYPES, _key_of(headers.get("idempotency-key")))


def read_post(form: Form, body: bytes, bytes_max: int) -> Post:
    """Divide a body into payloads and rejected lines; raise Refused when it can't be taken at all.

    `bytes_max` is what the body may expand to.
    """
    plain = _plain(form, body, bytes_max)
    is_array = not form.lines_only and plain.lstrip(_BEFORE_JSON)[:1] == b"["
    if plain.count(b"\n") > LINES_MAX or (is_array and plain.count(b",") > ARRAY_COMMAS_MAX):
        raise _too_many_lines()
    try:
        payloads, rejected = _divided(split_lines(plain) if form.lines_only else split_body(plain))
    except RefusedBody as refused:
        raise _unreadable(refused.line, refused.reason) from None
    if not (form.lines_only or payloads) and len(rejected) == 1:
        # One broken document, not a bad line among good ones.
        raise _unreadable(rejected[0].line, rejected[0].reason)
    return Post(tuple(payloads), tuple(rejected), hashlib.sha256(plain).hexdigest(), form.key)


def _key_of(key: str | None) -> str | None:
    if key is None:
        return None
    if not (1 <= len(key) <= KEY_BYTES_MAX and key.isascii() and key.isprintable()):
        raise Refused(400, f"an Idempotency-Key is 1 to {KEY_BYTES_MAX} printable ASCII characters.")
    try:
        BatchName.parse(key)
    except NotABatchName:
        return key
    raise Refused(422, "this Idempotency-Key names a batch of an agent's: batches go to the server, not to a device.")


def _plain(form: Form, body: bytes, bytes_max: int) -> bytes:
    """Believe the header, else the body's first bytes: no JSON begins like this."""
    if form.encoding in ("gzip", "x-gzip") or (not form.encoding and body.startswith(_GZIP)):
        return _expanded(body, bytes_max)
    if not form.encoding and body.startswith(_ZSTD):
        raise _no_zstd()
    return body


def _expanded(body: bytes, bytes_max: int) -> bytes:
    expanded, position = bytearray(), 0
    while True:  # one gzip member each time round: several in a row are one content
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            step = body[position : position + _STEP_BYTES]
            if not step:
                raise Refused(400, "the body can't be expanded: its gzip data is cut off. Send it again.")
            try:
                expanded += member.decompress(step)
            except zlib.error:
                raise Refused(
                    400, f"the body can't be expanded: its gzip data is damaged near byte {position}."
                ) from None
            position += len(step) - len(member.unused_data)
            if len(expanded) > bytes_max:
                raise Refused(413, f"the body expands to more than {bytes_max} bytes. Send it in parts.")
        if position == len(body):
            return bytes(expanded)


def _divided(pieces: Iterable[Piece]) -> tuple[list[bytes], list[RejectedLine]]:
    payloads: list[bytes] = []
    rejected: list[RejectedLine] = []
    for piece in pieces:
        if len(payloads) + len(rejected) >= LINES_MAX:
            raise _too_many_lines()
        try:
            parse_payload(piece.text)
        except RefusedPayload as refused:
            rejected.append(RejectedLine(piece.line, str(refused)))
        else:
            payloads.append(piece.text)
    return payloads, rejected


def _unreadable(line: int, reason: str) -> Refused:
    return Refused(400, f"line {line}: {reason}", error="unreadable", line=line, reason=reason)


def _too_many_lines() -> Refused:
    return Refused(413, f"the body has more than {LINES_MAX} lines. Send it in parts.")


def _no_zstd() -> Refused:
    return Refused(415, "this device can't expand zstd: send it with Content-Encoding gzip, or plain.")
