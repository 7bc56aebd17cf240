"""Whether a body holds more lines than are taken, told before any of them is made an object of.

A line of three bytes becomes some hundred bytes once it is read, so a body within its limit could still fill the
memory. May be relied on: this allocates nothing that grows with the body, and gives up as soon as the answer is known.
"""

import re

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"[ \t\r\n]*")
# A string without an end goes to the body's: looking for its end again from each quote in it would take for ever.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|([{\[])|([}\]])|(,)', re.DOTALL)


def has_more_lines(body: bytes, lines_max: int, *, lines_only: bool) -> bool:
    """Whether this is JSONL of more lines, or (unless `lines_only`) an array of more elements, than `lines_max`.

    Blank lines count: a body of nothing else is refused too.
    """
    if not lines_only and _first_byte(body) == b"[":
        # Commas are cheap to count, and most arrays have too few of them for any doubt.
        return body.count(b",") >= lines_max and _has_more_elements(body, lines_max)
    return body.count(b"\n") > lines_max


def _first_byte(body: bytes) -> bytes:
    start = _BLANK.match(body, len(_BYTE_ORDER_MARK) * body.startswith(_BYTE_ORDER_MARK))
    assert start, "it matches nothing at all, too"
    return body[start.end() : start.end() + 1]


def _has_more_elements(array: bytes, elements_max: int) -> bool:
    depth, elements = 0, 1
    for token in _TOKEN.finditer(array):
        opens, closes, divides = token.groups()
        if opens:
            depth += 1
        elif closes:
            depth -= 1
        elif divides and depth == 1:
            elements += 1
            if elements > elements_max:
                return True
    return False
