"""How transactions lie in a file or a request body: one JSON object, an array of them, or JSONL.

May be relied on: every piece is the sender's own bytes. Only line breaks between the tokens of an object
that was written over several lines become blanks (inside strings JSON allows none), because a record is one
line from intake on. A byte order mark before the first piece, CRLF line ends and blank lines are no data.
A body that can't be divided is refused as a whole; a bad line among good ones is the caller's to refuse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import orjson

LINES_SUFFIXES = (".jsonl", ".ndjson")
"""A file of such a name is JSONL whatever its first line holds."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
"""Around a transaction, these bytes are no data."""

_LINE_BREAKS_TO_BLANKS = bytes.maketrans(b"\r\n", b"  ")
_BYTE_OF_ERROR = re.compile(r"\(byte (\d+)\)")
_checked = msgspec.json.Decoder(msgspec.Raw)
_BLANKS = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+')
_BARE = re.compile(rb"[^, \t\r\n\]]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """What should be one transaction, with the line (from 1) of the body on which it begins."""

    line: int
    text: bytes


class RefusedBody(ValueError):
    """This body can't be divided into transactions."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def split_lines(body: bytes, first_line: int = 1) -> Iterator[Piece]:
    """Divide JSONL. Never raises: what a line holds is for the caller to judge."""
    for number, line in enumerate(body.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=first_line):
        text = line.strip(BLANK)
        if text:
            yield Piece(number, text)


def split_body(body: bytes) -> Iterator[Piece]:
    """Divide a body that is one object, an array or JSONL, whichever it turns out to be.

    Raises RefusedBody, before the first piece, when an array or a single object is broken.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    start = len(body) - len(body.lstrip(BLANK))
    if start == len(body):
        return iter(())
    if body[start : start + 1] == b"[":
        return _split_array(body, start)
    first_line, _, rest = body[start:].partition(b"\n")
    if not rest.strip(BLANK) or is_json(first_line):
        return split_lines(body)
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        line = max(error.lineno, _line_of(body, start))  # invalid UTF-8 is reported at the body's first byte
        raise RefusedBody(line, f"not valid JSON: {error.msg} at column {error.colno}") from None
    return iter((Piece(_line_of(body, start), _as_one_line(body)),))


def _split_array(body: bytes, start: int) -> Iterator[Piece]:
    try:
        _checked.decode(body)  # makes nothing of it, and so needs no memory
    except msgspec.MsgspecError as error:
        found = _BYTE_OF_ERROR.search(str(error))
        position = int(found[1]) if found else len(body)
        raise RefusedBody(_line_of(body, position), "the JSON array is broken or cut off") from None
    except RecursionError:
        raise RefusedBody(1, "nested too deeply") from None
    return _elements(body, start + 1)


def _elements(body: bytes, position: int) -> Iterator[Piece]:
    """Yield the elements of a valid array, of which the first begins at `position` or after it."""
    line, counted = 1, 0
    while body[begin := _after(_BLANKS, body, position)] != ord("]"):
        end = _end_of_value(body, begin)
        line += body.count(b"\n", counted, begin)
        counted = begin
        yield Piece(line, _as_one_line(body[begin:end]))
        position = _after(_BLANKS, body, end)
        position += body[position] == ord(",")


def _end_of_value(body: bytes, begin: int) -> int:
    """Find where the value of valid JSON ends that begins at `begin`."""
    if body[begin] == ord('"'):
        return _after(_STRING, body, begin)
    if body[begin] not in b"{[":
        return _after(_BARE, body, begin)
    depth, position = 1, begin + 1
    while depth:
        position = _after(_TO_BRACKET, body, position)
        depth += 1 if body[position] in b"{[" else -1
        position += 1
    return position


def _after(pattern: re.Pattern[bytes], body: bytes, position: int) -> int:
    found = pattern.match(body, position)
    assert found, "the body was checked before it is divided"
    return found.end()


def _as_one_line(text: bytes) -> bytes:
    return text.strip(BLANK).translate(_LINE_BREAKS_TO_BLANKS)


def _line_of(body: bytes, position: int) -> int:
    return body.count(b"\n", 0, position) + 1


def is_json(text: bytes) -> bool:
    """Whether it is one valid JSON value, of any kind."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
