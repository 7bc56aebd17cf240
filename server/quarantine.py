"""What was refused as data, and what an operator makes of it: replayed into bronze, as it was or mended, or discarded.

May be relied on:
- Nothing that is held is ever removed or changed: mended bytes are kept beside what came.
- A replayed line keeps its identity: device, epoch, seq and id of a record; of anything else what it would have had
  in its place. Replaying it, loading its object once more and its sender mending it double nothing.
- Replaying a line is one transaction: it is in bronze and marked, or neither.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from server.bronze import land_held
from server.database import named_queries, transact
from server.errors import ServerError
from server.reading import Content, Line, Whole, foreign_lines, record_line
from wire.batch import BatchName
from wire.record import RefusedLine, format_instant

_QUERIES = named_queries("quarantine")
_ID = re.compile(rb'\s*\{\s*"seq"\s*:\s*\d+\s*,\s*"id"\s*:\s*"([0-9A-Fa-f-]{36})"')


class UnknownHeld(ServerError):
    """Nothing is held under this number."""


class NotReplayable(ServerError):
    """This can't be replayed, as it is."""


@dataclass(frozen=True, slots=True)
class Held:
    """A line or an object in quarantine. `bytes` of the line; `outcome` once an operator decided."""

    quarantine_id: int
    kind: str
    device_id: str
    bucket: str
    key: str
    line: int | None
    seq: int | None
    reason: str
    held_at: datetime
    outcome: str | None
    ended_at: datetime | None
    why: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a held line: rows that are new in bronze, and rows that it had already."""

    quarantine_id: int
    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class _Locked:
    kind: str
    device_id: str
    file_id: int
    bucket: str
    key: str
    version: str
    epoch: str | None
    seq: int | None
    line: int | None
    place: int | None
    raw: bytes | None
    held_at: datetime
    written_at: datetime | None
    outcome: str | None


def list_held(connection: psycopg.Connection, *, device_id: str | None, ended: bool, limit: int) -> list[Held]:
    """Return at most `limit` of what waits for a decision, the newest first; with `ended`, of all that is held."""
    values = {"device_id": device_id, "ended": ended, "limit": limit}
    with connection.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(_QUERIES["list"], values).fetchall()


def find_held(connection: psycopg.Connection, quarantine_id: int) -> Held:
    """Return what is held under this number. Raises UnknownHeld."""
    with connection.cursor(row_factory=class_row(Held)) as cursor:
        held = cursor.execute(_QUERIES["find"], {"quarantine_id": quarantine_id}).fetchone()
    if held is None:
        raise _unknown(quarantine_id)
    return held


def raw_of(connection: psycopg.Connection, quarantine_id: int) -> bytes:
    """Return a held line, byte for byte. Raises UnknownHeld, also of an object: that lies in the bucket."""
    row = connection.execute(_QUERIES["raw"], {"quarantine_id": quarantine_id}).fetchone()
    if row is None:
        raise _unknown(quarantine_id)
    if row[0] is None:
        raise UnknownHeld(f"{quarantine_id} is an object: its bytes lie in the bucket.")
    return bytes(row[0])


def replay(pool: ConnectionPool, quarantine_id: int, edited: bytes | None = None) -> Replayed:
    """Take a held line into bronze, or `edited` in its stead. Raises UnknownHeld and NotReplayable."""
    return transact(pool, lambda connection: _replay(connection, quarantine_id, edited))


def discard(pool: ConnectionPool, quarantine_ids: Sequence[int], why: str) -> list[int]:
    """Decide that these need nothing; return those that waited for a decision. What was held stays held."""
    values = {"quarantine_id": list(quarantine_ids), "why": why}
    return transact(pool, lambda connection: [row[0] for row in connection.execute(_QUERIES["discard"], values)])


def _replay(connection: psycopg.Connection, quarantine_id: int, edited: bytes | None) -> Replayed:
    row = connection.execute(_QUERIES["lock"], {"quarantine_id": quarantine_id}).fetchone()
    if row is None:
        raise _unknown(quarantine_id)
    held = _Locked(*row)
    if held.raw is None or held.line is None:
        raise NotReplayable(f"it is an object: mend it in the bucket, then 'files reload {held.file_id}'.")
    if held.outcome == "replayed":
        raise NotReplayable(f"it was replayed before: 'scout-server quarantine show {quarantine_id}' says when.")
    text = held.raw if edited is None else edited
    lines = [_record(held, text)] if held.epoch else _others(held, text)
    accepted = land_held(connection, held.file_id, _content(held, lines))
    values = {"quarantine_id": quarantine_id, "edited": edited, "rows": accepted}
    connection.execute(_QUERIES["replayed"], values)
    return Replayed(quarantine_id, accepted, len(lines) - accepted)


def _record(held: _Locked, text: bytes) -> Line:
    """Read a record, which must be the one that was refused."""
    assert held.line is not None
    assert held.raw is not None
    try:
        line = record_line(held.line, text.rstrip(b"\r\n"), held.device_id)
    except RefusedLine as problem:
        raise NotReplayable(
            f"it is still refused: {problem}. A mended line has all that a line of a batch has, seq and id included."
        ) from None
    assert line.record
    if line.record.seq != held.seq:
        raise NotReplayable(f"it has seq {line.record.seq}, and what is held is {held.seq}: that must stay.")
    own_id = _ID.match(held.raw)
    if own_id and own_id[1].decode().lower() != line.record.id:
        raise NotReplayable("it has another id than what is held: that must stay.")
    return line


def _others(held: _Locked, text: bytes) -> list[Line]:
    assert held.line is not None
    read = foreign_lines(text, held.key, held.device_id, line=held.line, place=held.place or held.line)
    lines = []
    for item in read:
        if not isinstance(item, Line):
            raise NotReplayable(f"it is still refused: {item.reason}. Mend it, and give the mended file by --with.")
        lines.append(item)
    if not lines:
        raise NotReplayable("it holds no transaction: give a file with one by --with, or discard it.")
    return lines


def _content(held: _Locked, lines: Sequence[Line]) -> Content:
    """Give the lines what they would have had when they came."""
    name = BatchName.parse(held.key) if held.epoch else None
    captured_at = format_instant(held.written_at or held.held_at) if held.written_at or _was_posted(held) else None
    clock = "file" if held.written_at else None
    return Content(held.key, held.device_id, name, iter((*lines, Whole("", 0))), captured_at, clock)


def _was_posted(held: _Locked) -> bool:
    """Whether no agent and no bucket took it before: then the endpoint was its intake."""
    return not held.version


def _unknown(quarantine_id: int) -> UnknownHeld:
    return UnknownHeld(f"nothing is held under number {quarantine_id}: 'scout-server quarantine list' shows what is.")
