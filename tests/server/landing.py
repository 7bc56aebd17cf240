"""Rows of the landing table as the loader would commit them, for tests of what comes after it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import UUID, uuid4

import psycopg

EPOCH = "00000000000000aa"
MORNING = datetime(2026, 1, 20, 1, 0, tzinfo=UTC)  # nine o'clock in Manila


@dataclass(frozen=True, slots=True)
class Landed:
    """One row of the landing table: a record, or with `epoch` None what others uploaded."""

    payload: str
    device_id: str = "pi-1"
    epoch: str | None = EPOCH
    seq: int | None = None
    id: UUID = field(default_factory=uuid4)
    captured_at: datetime | None = MORNING
    clock: str = "synced"
    boot: str = "boot-1"
    mono_ms: int | None = None  # else the line's number
    claimed_device_id: str | None = None  # another device that the payload names

    @property
    def identity(self) -> bytes | None:
        """What makes a foreign line itself."""
        return None if self.epoch else hashlib.sha256(self.payload.encode()).digest()


def record(seq: int, sale: dict[str, Any] | str, **fields: Any) -> Landed:
    """A record of the agent's, captured `seq` seconds after MORNING unless said otherwise."""
    fields.setdefault("captured_at", MORNING + timedelta(seconds=seq))
    return Landed(sale if isinstance(sale, str) else json_text(sale), seq=seq, **fields)


def foreign(sale: dict[str, Any] | str, **fields: Any) -> Landed:
    """A line that someone else uploaded: no intake saw it."""
    text = sale if isinstance(sale, str) else json_text(sale)
    return Landed(text, epoch=None, captured_at=None, **fields)


def json_text(value: Any) -> str:
    """Write JSON, each Decimal with its own digits."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{encode_basestring_ascii(name)}:{json_text(part)}" for name, part in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(json_text(part) for part in value) + "]"
    return json.dumps(value)


def land(connection: psycopg.Connection, rows: Iterable[Landed]) -> int:
    """Put rows and their load into bronze, in one transaction (or a savepoint of the caller's); return the load."""
    rows = list(rows)
    with connection.transaction():
        found = connection.execute(
            "insert into scout_bronze.loads (rows) values (%s) returning load_id", (len(rows),)
        ).fetchone()
        assert found is not None
        (load_id,) = found
        copy_text = (
            "copy scout_bronze.transactions_raw (load_id, device_id, epoch, seq, id, identity, captured_at, clock,"
            " boot, mono_ms, payload, object_key, line, claimed_device_id) from stdin"
        )
        with connection.cursor() as cursor, cursor.copy(copy_text) as copy:
            for line, row in enumerate(rows, start=1):
                mono_ms = line if row.mono_ms is None else row.mono_ms
                own = (row.clock, row.boot, mono_ms) if row.epoch else (None, None, None)
                row_id = row.id if row.epoch else None
                key = (row.device_id, row.epoch, row.seq, row_id, row.identity, row.captured_at)
                place = (f"2026-01-20/{row.device_id}/x.jsonl", line, row.claimed_device_id)
                copy.write_row((load_id, *key, *own, row.payload, *place))
    return load_id
