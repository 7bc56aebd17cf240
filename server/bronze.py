"""The only door into the landing table, for loader and endpoint alike.

May be relied on:
- Lines, ledger rows, quarantine and the load that tells the ETL commit together, in the caller's transaction.
- A transaction is landed once, however often, on whichever path and in whichever company it comes again.
- Every line is counted once: accepted, duplicate or rejected.
- A row that was lost from bronze and comes again is the row that it was, so that what stands on it is not doubled.
- Of a content that turns out to be unreadable nothing is landed, however much of it was staged by then, and no
  refused line fails its neighbours.
- Memory does not grow with a content: lines are staged as they are read.
- Inserts go in key order, so that two transactions never wait for each other crosswise. That holds for one
  `land` in a transaction; a caller of several begins again when PostgreSQL says so (`database.transact`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from server.database import named_queries
from server.expanding import Unreadable
from server.reading import Content, Delivery, Line, Refused, Whole
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
class Landed:
    """How many lines of a content were new, known already and refused."""

    accepted: int
    duplicates: int
    rejected: int


@dataclass(frozen=True, slots=True)
class _Taken:
    """A content that was staged whole."""

    file_id: int
    name: BatchName | None
    whole: Whole
    lines: int
    rejected: int


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
    accepted = _store_fresh(connection, fresh) if fresh else {}
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


class Staging:
    """The staging table while it is open. What was taken whole is landed by `land`, and nothing else."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self.bytes = 0  # of payloads and refused lines, whatever becomes of them
        self.taken: list[_Taken] = []
        self.discarded: list[int] = []  # ledger rows of which some lines are staged
        self._copy = copy

    def take(self, file_id: int, content: Content) -> None:
        """Stage a content under its ledger row. After Unreadable, which reading may raise, take the next."""
        lines = rejected = 0
        try:
            for line in content.lines:
                if isinstance(line, Line):
                    lines += 1
                    self.bytes += len(line.payload)
                    self._copy.write_row(_accepted_row(file_id, content, line))
                elif isinstance(line, Refused):
                    rejected += 1
                    self.bytes += len(line.raw)
                    self._copy.write_row(_refused_row(file_id, content, line))
                else:
                    self.taken.append(_Taken(file_id, content.name, line, lines, rejected))
        except Unreadable:
            self.discarded.append(file_id)
            raise


@contextmanager
def staging(connection: psycopg.Connection) -> Iterator[Staging]:
    """Open the staging table, empty. The connection can do nothing else until it is closed."""
    queries = named_queries("bronze")
    connection.execute(queries["prepare"], prepare=False)  # two statements
    with connection.cursor() as cursor, cursor.copy(queries["stage"]) as copy:
        yield Staging(copy)


def land(connection: psycopg.Connection, staged: Staging) -> dict[int, Landed]:
    """Land what was taken, by ledger row, in the transaction that staged it and holds those rows."""
    if not staged.taken:
        return {}
    queries = named_queries("bronze")
    came_before = _take_back_places(connection, [taken.file_id for taken in staged.taken])
    if staged.discarded:
        connection.execute(queries["unstage"], {"file_id": staged.discarded})
    load_id, accepted = _merge(connection)
    if any(taken.rejected for taken in staged.taken):
        connection.execute(queries["quarantine_lines"])
    landed = {}
    for taken in staged.taken:
        new = accepted.get(taken.file_id, 0)
        landed[taken.file_id] = Landed(new, taken.lines - new, taken.rejected)
    settled = [_settled(taken, load_id, landed[taken.file_id]) for taken in staged.taken]
    connection.execute(queries["settle_files"], columns(_SETTLED, settled))
    if came_before:
        connection.execute(queries["recount"], {"file_id": list(landed)})
    return landed


def land_held(connection: psycopg.Connection, file_id: int, content: Content) -> int:
    """Land lines that were held of a file which the ledger covers already; return how many were new."""
    with staging(connection) as staged:
        staged.take(file_id, content)
    _, accepted = _merge(connection)
    return sum(accepted.values())


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


def _take_back_places(connection: psycopg.Connection, file_ids: list[int]) -> bool:
    """Give rows that were lost from bronze their old numbers, by which production and silver know them already.

    Says whether rows of these files, or of other copies of their batches, came before at all.
    """
    queries = named_queries("bronze")
    came_before: bool = _only(connection.execute(queries["note_former_loads"], {"file_id": file_ids}))
    if came_before:
        connection.execute(queries["take_back_places"], {"file_id": file_ids})
    return came_before


def _merge(connection: psycopg.Connection) -> tuple[int, dict[int, int]]:
    """Land what is staged; return the load's number, and how many lines were new by ledger row."""
    queries = named_queries("bronze")
    load_id: int = _only(connection.execute(queries["next_load"]))
    accepted: dict[int, int] = dict(connection.execute(queries["merge"], {"load_id": load_id}).fetchall())
    rows = sum(accepted.values())
    if rows:
        connection.execute(queries["record_load"], {"load_id": load_id, "rows": rows})
    return load_id, accepted


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


def _store_fresh(connection: psycopg.Connection, fresh: Mapping[int, Delivery]) -> dict[int, int]:
    """Land what the ledger does not cover yet, by ledger row; return how many lines of each were new."""
    with staging(connection) as staged:
        for file_id, delivery in fresh.items():
            staged.take(file_id, delivery.content)
    return {file_id: landed.accepted for file_id, landed in land(connection, staged).items()}


def _accepted_row(file_id: int, content: Content, line: Line) -> tuple[Any, ...]:
    """What the staging table holds of a line, in the order of its columns."""
    payload = line.payload.decode()
    record = line.record
    if record is None or content.name is None:
        own: tuple[Any, ...] = (
            *(None, None, None, line.identity),
            *(content.captured_at, content.clock, None, None, payload, None),
        )
    else:
        extra = record.extra.decode() or None
        own = (
            *(content.name.epoch, record.seq, record.id, None),
            *(record.captured_at, record.clock, record.boot, record.mono_ms, payload, extra),
        )
    return (file_id, content.device_id, *own, line.claimed_device_id, content.key, line.line, None, None, None)


def _refused_row(file_id: int, content: Content, line: Refused) -> tuple[Any, ...]:
    epoch = content.name.epoch if content.name else None
    # Within a batch the place is the seq, whichever copy or path brought it.
    place = (epoch, line.seq) if epoch else (content.key, line.line)
    overlong = (line.overlong,) if line.overlong else ()
    identity = _digest(content.device_id, *place, line.raw, *overlong)
    own = (epoch, line.seq, None, identity, *[None] * 7)
    return (file_id, content.device_id, *own, content.key, line.line, line.place, line.reason, line.raw)


_SETTLED = (
    *("file_id", "load_id", "epoch", "first_seq", "last_seq", "sha256", "bytes", "lines"),
    *("accepted", "duplicates", "rejected"),
)


def _settled(taken: _Taken, load_id: int, landed: Landed) -> tuple[Any, ...]:
    name = taken.name
    run = (name.epoch, name.first_seq, name.last_seq) if name else (None, None, None)
    return (
        *(taken.file_id, load_id if landed.accepted else None, *run, taken.whole.sha256, taken.whole.bytes),
        *(taken.lines + taken.rejected, landed.accepted, landed.duplicates, landed.rejected),
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
