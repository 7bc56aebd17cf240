"""The sources' notes in a damaged spool whose schema can't be read, told by the shape of their rows.

May be relied on: a note that is false, or older than it should be, harms nothing. A mark counts only for a file whose
content proves it, a taken file only if it lies in processing/, a post only for a client that sends its key again. So
of several that turn up for one thing, the one that has taken most is given.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from agent.pages import Pages, Row, Value

Notes = dict[str, list[dict[str, Any]]]

_TAKEN = re.compile(rb"[0-9a-f]{16}-")
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_MARK = ("inode", "name", "bytes_taken", "lines_taken", "skips_line", "head", "near", "copy_of")


def notes_in(pages: Pages) -> Notes:
    """Notes of the tail, local HTTP and folder sources, by table."""
    marks: dict[int, dict[str, Any]] = {}
    taken: dict[bytes, int] = {}
    posts: dict[int, dict[str, Any]] = {}
    for page in range(1, pages.count + 1):
        for row in _rows_of_notes(pages, page):
            if mark := _mark(row):
                known = marks.get(row.rowid)
                if known is None or known["bytes_taken"] <= mark["bytes_taken"]:
                    marks[row.rowid] = mark
            elif post := _post(row):
                posts[row.rowid] = post
        for values in pages.entries(page):
            if found := _taken(values):
                name, bytes_taken = found
                taken[name] = max(bytes_taken, taken.get(name, 0))
    return {
        "tail_marks": list(marks.values()),
        "posts": list(posts.values()),
        "taken_files": [{"name": name, "bytes_taken": bytes_taken} for name, bytes_taken in taken.items()],
    }


def _rows_of_notes(pages: Pages, page: int) -> Iterator[Row]:
    """The rows of a page whose first one is a note: a page belongs to one table, and most hold records."""
    rows = pages.rows(page)
    first = next(rows, None)
    if first is not None and (_mark(first) or _post(first)):
        yield from chain([first], rows)


def _mark(row: Row) -> dict[str, Any] | None:
    if len(row.values) != len(_MARK) + 1 or row.values[0] is not None:
        return None
    mark = dict(zip(_MARK, row.values[1:], strict=True))
    fits: dict[str, Callable[[Value], bool]] = {
        **dict.fromkeys(("inode", "bytes_taken", "lines_taken", "skips_line"), _is_integer),
        **dict.fromkeys(("name", "head", "near"), _is_bytes),
        "copy_of": lambda value: value is None or _is_integer(value),
    }
    return {"number": row.rowid, **mark} if all(fits[name](value) for name, value in mark.items()) else None


def _post(row: Row) -> dict[str, Any] | None:
    if len(row.values) != 4 or row.values[0] is not None:
        return None
    _, key, sha256, noted_at = row.values
    if not isinstance(key, bytes) or not isinstance(sha256, bytes) or not _SHA256.fullmatch(sha256):
        return None
    at = noted_at.decode(errors="replace") if isinstance(noted_at, bytes) else None
    return {"number": row.rowid, "key": key.decode(errors="replace"), "sha256": sha256.decode(), "noted_at": at}


def _taken(values: tuple[Value, ...]) -> tuple[bytes, int] | None:
    if len(values) != 2:
        return None
    name, bytes_taken = values
    if not isinstance(name, bytes) or not _TAKEN.match(name) or not isinstance(bytes_taken, int):
        return None
    return name, bytes_taken


def _is_integer(value: Value) -> bool:
    return isinstance(value, int)


def _is_bytes(value: Value) -> bool:
    return isinstance(value, bytes)
