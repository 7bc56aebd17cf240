"""The only door into the landing table, for loader and endpoint alike.

May be relied on:
- Lines, ledger rows, quarantine and the load that tells the ETL commit together, in the caller's transaction.
- A transaction is landed once, however often, on whichever path and in whichever company it comes again.
- Every line of a delivery is counted once: accepted, duplicate or rejected.
- Inserts go in key order, so that two transactions never wait for each other crosswise. That holds for one
  `store` in a transaction; a caller of several begins again when PostgreSQL says so (`database.transact`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from server.database import named_queries
from server.reading import Delivery, Line
from wire.batch import BatchName, NotABatchName
from wire.receipt import RejectedLine

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery: accepted, duplicates and the rejected lines add up to its lines.

    `conflict`: the ledger holds another content under this bucket, key and version, or another device's;
    nothing was stored.
    """

    accepted: int
    duplicates: int
    rejected: tuple[RejectedLine, ...]
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A ledger row as it stands once locked."""

    file_id: int
    device_id: str
    state: str
    sha256: str | None

    def conflicts_with(self, delivery: Delivery) -> bool:
        other = self.state == "loaded" and self.sha256 != delivery.sha256
        return other or self.device_id != delivery.device_id


def store(connection: psycopg.Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Land the deliveries within the caller's transaction; return an outcome for each, in their order.

    A delivery that the ledger covers already is answered from it. Where another transaction is storing the
    same one, this waits until that ends.
    """
    if not deliveries:
        return []
    ledger = _open_ledger(connection, deliveries)
    fresh: dict[int, Delivery] = {}
    for delivery in deliveries:
        held = ledger[_key_of(delivery)]
        if held.state != "loaded" and not held.conflicts_with(delivery):
            fresh.setdefault(held.file_id, delivery)
    accepted = _land(connection, fresh) if fresh else {}
    outcomes = []
    for delivery in deliveries:
        held = ledger[_key_of(delivery)]
        first = fresh.get(held.file_id)
        if held.conflicts_with(delivery) or (first and first.sha256 != delivery.sha256):
            outcomes.append(Outcome(0, 0, (), conflict=True))
            continue
        new = accepted.pop(held.file_id, 0)  # its first copy was landed, any other is a repeat
        rejected = tuple(RejectedLine(line.line, line.reason) for line in delivery.refused)
        outcomes.append(Outcome(new, len(delivery.lines) - new, rejected))
    return outcomes


def quarantine_object(
    connection: psycopg.Connection, *, bucket: str, key: str, version: str, device_id: str, reason: str
) -> None:
    """Note in ledger and quarantine that an object can't be read. Does nothing to one that was loaded."""
    batch, resend = batch_and_resend(key)
    values = {
        "bucket": bucket,
        "key": key,
        "version": version,
        "device_id": device_id,
        "batch": batch,
        "resend": resend,
        "reason": reason,
        "identity": _digest(bucket, key, version),
    }
    connection.execute(named_queries("bronze")["quarantine_object"], values)


def batch_and_resend(key: str) -> tuple[str | None, int | None]:
    """Return the batch that an object's key names, without the suffix of a copy, and the copy's number."""
    try:
        name = BatchName.parse(key)
    except NotABatchName:
        return None, None
    return name.again(0).key, name.resend


def columns(names: Iterable[str], rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Turn rows into one array for each column, as `unnest` takes them."""
    listed = list(rows)
    return {name: [row[place] for row in listed] for place, name in enumerate(names)}


def _open_ledger(connection: psycopg.Connection, deliveries: Sequence[Delivery]) -> dict[_Key, _Held]:
    queries = named_queries("bronze")
    rows = [
        (
            *(*_key_of(delivery), delivery.device_id),
            *((delivery.name.again(0).key, delivery.name.resend) if delivery.name else (None, None)),
        )
        for delivery in deliveries
    ]
    values = columns(("bucket", "key", "version", "device_id", "batch", "resend"), rows)
    connection.execute(queries["open_files"], values)
    locked = connection.execute(queries["lock_files"], values)
    return {(row[0], row[1], row[2]): _Held(*row[3:]) for row in locked}


def _land(connection: psycopg.Connection, fresh: Mapping[int, Delivery]) -> dict[int, int]:
    """Land what the ledger does not cover yet, by ledger row; return how many lines of each were new."""
    queries = named_queries("bronze")
    connection.execute(queries["prepare"], prepare=False)  # two statements
    load_id = _only(connection.execute(queries["next_load"]))
    with connection.cursor() as cursor, cursor.copy(queries["stage"]) as copy:
        for file_id, delivery in fresh.items():
            for line in delivery.lines:
                copy.write_row(_staged(file_id, delivery, line))
    accepted: dict[int, int] = dict(connection.execute(queries["merge"], {"load_id": load_id}).fetchall())
    rows = sum(accepted.values())
    if rows:
        connection.execute(queries["record_load"], {"load_id": load_id, "rows": rows})
    _quarantine_lines(connection, fresh)
    held = [_settled(file_id, delivery, load_id, accepted.get(file_id, 0)) for file_id, delivery in fresh.items()]
    connection.execute(queries["settle_files"], columns(_SETTLED, held))
    return accepted


def _staged(file_id: int, delivery: Delivery, line: Line) -> tuple[Any, ...]:
    payload = line.payload.decode()
    record = line.record
    if record is None or delivery.name is None:
        own: tuple[Any, ...] = (
            *(None, None, None, line.identity),
            delivery.captured_at,
            delivery.clock,
            None,
            None,
            payload,
            None,
        )
    else:
        extra = record.extra.decode() or None
        own = (
            *(delivery.name.epoch, record.seq, record.id, None),
            *(record.captured_at, record.clock, record.boot, record.mono_ms, payload, extra),
        )
    return (file_id, delivery.device_id, *own, line.claimed_device_id, delivery.key, line.line)


def _quarantine_lines(connection: psycopg.Connection, fresh: Mapping[int, Delivery]) -> None:
    rows = []
    for file_id, delivery in fresh.items():
        epoch = delivery.name.epoch if delivery.name else None
        for line in delivery.refused:
            # Within a batch the place is the seq, whichever copy or path brought it.
            place = (epoch, line.seq) if epoch else (delivery.key, line.line)
            identity = _digest(delivery.device_id, *place, line.raw)
            row = (file_id, delivery.device_id, epoch, line.seq, line.line, line.reason, line.raw, identity)
            rows.append(row)
    if rows:
        names = ("file_id", "device_id", "epoch", "seq", "line", "reason", "raw", "identity")
        connection.execute(named_queries("bronze")["quarantine_lines"], columns(names, rows))


_SETTLED = (
    *("file_id", "load_id", "epoch", "first_seq", "last_seq", "sha256", "bytes", "lines"),
    *("accepted", "duplicates", "rejected"),
)


def _settled(file_id: int, delivery: Delivery, load_id: int, accepted: int) -> tuple[Any, ...]:
    name = delivery.name
    run = (name.epoch, name.first_seq, name.last_seq) if name else (None, None, None)
    lines, rejected = len(delivery.lines), len(delivery.refused)
    return (
        *(file_id, load_id if accepted else None, *run, delivery.sha256, delivery.bytes),
        *(lines + rejected, accepted, lines - accepted, rejected),
    )


def _key_of(delivery: Delivery) -> _Key:
    return delivery.bucket, delivery.key, delivery.version


def _digest(*parts: str | int | bytes | None) -> bytes:
    texts = (part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hashlib.sha256(b"\0".join(texts)).digest()


def _only(cursor: psycopg.Cursor) -> Any:
    row = cursor.fetchone()
    assert row is not None, "this query always has one row"
    return row[0]
