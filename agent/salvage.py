"""Salvage: what a damaged spool still gives, into the one that took its place.

May be relied on
- A record comes back byte for byte under its own epoch and seq, or its seq is noted as lost. A sealed batch that is
  whole comes back under its own name and in its own state; what is left of others is sealed anew, run by run.
- Every step is one transaction that adds up by itself: a cut leaves what was salvaged so far on its way, and the next
  run goes on. Run twice, nothing is there twice.
- What was settled is not sent again, unless the life of the server's database has changed meanwhile.
- Memory follows the number of pages, not the size of the file; intake waits for no more than one batch.

The damaged file stays where it is. A loss noted here is one that the server compares with what it holds.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import BUILT_ON
from agent.checksum import line_checksum
from agent.connection import SEQS_PER_EPOCH
from agent.damage import proves_damage
from agent.errors import LocalFault
from agent.old_notes import notes_in
from agent.pages import Pages
from agent.schema import connect_reading, is_orphaned
from agent.spool import Spool
from agent.statements import queries_of
from agent.wreck import OldBatch, OldEpoch, Proved, Run, Wreck
from wire.batch import content_hash
from wire.record import format_instant

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.db import Table

ROWS_MAX = 2000
BYTES_MAX = 1024 * 1024
"""Of a batch sealed anew: as usual ones are by default."""

_SQL = queries_of("damage")
_OWN_TABLES = {"device", "epochs", "records", "batches", "lost", "salvages", "_sqlite_migrations"}


class Stopped(Exception):
    """The salvage was asked to stop; the next run goes on."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What became of a folder."""

    folder: str
    finished_at: str | None
    rows_salvaged: int | None
    rows_lost: int | None


class Salvage(Spool):
    """A connection to the new spool that takes in old ones."""

    def known(self, folder: Path) -> Salvaged | None:
        """What is noted of a folder; None when nothing was carried over yet."""
        row = self._connection.execute(_SQL["salvage"], {"folder": folder.name}).fetchone()
        return Salvaged(*row) if row else None

    def carry_over(self, folder: Path) -> None:
        """Take over what sources must know before they go on: which of a file is in the spool, and the like.

        Everything of the small tables that can be read, once; the records follow by `take_in`.
        """
        if self.known(folder):
            return
        from sqlite_utils import Database  # noqa: PLC0415  (seldom: a resident daemon doesn't carry it)

        notes = _notes(folder / self._path.name, set(Database(self._connection).table_names()) - _OWN_TABLES)
        rows_by_table = notes.rows
        if not notes.is_whole:
            with Pages(folder / self._path.name, folder / f"{self._path.name}-wal") as pages:
                rows_by_table = notes_in(pages) | notes.rows
        with self._transaction():
            for table, rows in rows_by_table.items():
                self._carry(Database(self._connection).table(table), rows)
            if notes.generation:
                self._connection.execute(_SQL["carry_generation"], {"generation": notes.generation})
            self._connection.execute(_SQL["begin_salvage"], {"folder": folder.name})

    def _carry(self, table: "Table", rows: list[dict[str, Any]]) -> None:
        columns = table.columns_dict
        for row in rows:
            known = [name for name in columns if name in row]
            statement = _SQL["carry_row"].format(
                table=table.name, columns=", ".join(known), values=", ".join(f":{name}" for name in known)
            )
            try:
                self._connection.execute(statement, row)
            except sqlite3.IntegrityError:
                continue  # damaged into something that the column can't hold

    def take_in(self, folder: Path, go_on: Callable[[], bool], seen: Callable[[int, int], None]) -> Salvaged:
        """Salvage what a folder holds; `seen` hears how many pages of how many were looked at.

        Raises Stopped once `go_on` says no, SpoolFull and other LocalFaults: whatever is done stays done.
        """
        salvaged = lost = 0
        with Pages(folder / self._path.name, folder / f"{self._path.name}-wal") as pages:
            wreck = Wreck(pages, self.device_id)
            for page, count in wreck.survey():
                _keep_on(go_on)
                seen(page, count)
            for old in wreck.epochs():
                number = self._adopt(old)
                for first, last, batch in _plan(old):
                    for run in _without((first, last), self._covered(number, old.epoch)):
                        _keep_on(go_on)
                        rows, missing = self._take_run(wreck, old, number, run, batch)
                        salvaged += rows
                        lost += missing
        outcome = Salvaged(folder.name, format_instant(self._clock.now()), salvaged, lost)
        with self._transaction():
            self._connection.execute(
                _SQL["finish_salvage"],
                {"folder": folder.name, "now": outcome.finished_at, "rows_salvaged": salvaged, "rows_lost": lost},
            )
        return outcome

    def _adopt(self, old: OldEpoch) -> int:
        with self._transaction():
            row = self._connection.execute(_SQL["adopted"], {"epoch": old.epoch}).fetchone()
            if row is None:
                self._connection.execute(
                    _SQL["adopt_epoch"], {"epoch": old.epoch, "boot": old.boot, "opened_at": old.opened_at}
                )
                row = self._connection.execute(_SQL["adopted"], {"epoch": old.epoch}).fetchone()
            number = int(row[0])
            self._connection.execute(_SQL["raise_adopted"], {"number": number, "head": old.head})
            for run in old.lost:
                self._lose(old.epoch, _without(run, self._covered(number, old.epoch)))
            self._connection.execute(_SQL["count_adopted"], {"number": number})
        return number

    def _covered(self, number: int, epoch: str) -> list[Run]:
        rows = self._connection.execute(_SQL["covered"], {"number": number, "epoch": epoch})
        return [(first, last) for first, last in rows]

    def _take_run(self, wreck: Wreck, old: OldEpoch, number: int, run: Run, batch: OldBatch | None) -> tuple[int, int]:
        """Take in what is left of a run; return how many records that is, and how many are lost."""
        first, last = run
        records = wreck.records(old, first, last)
        if batch:
            whole = list(records)
            if run == batch.run and content_hash(_jsonl(whole)) == batch.fields["sha256"]:
                self._store(number, old.epoch, whole, self._as_it_was(batch, wreck.generation))
                return len(whole), 0
            if batch.fields["state"] == "settled":
                return 0, 0  # the server has it
            records = iter(whole)
        taken: list[Run] = []
        for part in _runs(records):
            self._store(number, old.epoch, part, None)
            taken.append((part[0].seq, part[-1].seq))
        missing = list(_without(run, taken))
        with self._transaction():
            self._lose(old.epoch, missing)
            self._connection.execute(_SQL["count_adopted"], {"number": number})
        return sum(last - first + 1 for first, last in taken), sum(last - first + 1 for first, last in missing)

    def _store(self, number: int, epoch: str, records: list[Proved], batch: dict[str, Any] | None) -> None:
        """Take in a run with its batch: as it was, or sealed now."""
        jsonl = _jsonl(records)
        self._need_room(2 * len(jsonl))
        rows = [
            (number * SEQS_PER_EPOCH + record.seq, record.captured_at, record.line.decode(), proof)
            for record in records
            for proof in [line_checksum(epoch, record.line)]
        ]
        with self._transaction():
            self._connection.executemany(_SQL["take_record"], rows)
            if batch:
                self._connection.execute(_SQL["take_batch"], {**batch, "epoch_number": number})
            else:
                name = self._name(epoch, records[0].seq, records[-1].seq, jsonl, BUILT_ON)
                self._store_batch(number, name, jsonl)
            self._connection.execute(_SQL["count_adopted"], {"number": number})

    def _as_it_was(self, batch: OldBatch, generation: str | None) -> dict[str, Any]:
        """A batch as it stood. What was settled in another life of the server's database is awaited again."""
        if batch.fields["state"] != "settled" or (generation and generation == self.generation()):
            return dict(batch.fields)
        return {**batch.fields, "state": "accepted", "settled_at": None}

    def _lose(self, epoch: str, runs: Iterable[Run]) -> None:
        for first, last in runs:
            self._connection.execute(_SQL["note_lost"], {"epoch": epoch, "first": first, "last": last})


@dataclass(frozen=True, slots=True)
class _Notes:
    generation: str | None
    rows: dict[str, list[dict[str, Any]]]
    is_whole: bool  # whether every table could be looked at


def _notes(file: Path, tables: set[str]) -> _Notes:
    """What can be read of the small tables. Where even the schema is gone, that is nothing."""
    if not file.exists() or is_orphaned(file):
        return _Notes(None, {}, is_whole=False)
    from sqlite_utils import Database  # noqa: PLC0415

    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        with closing(connect_reading(file)) as connection:
            connection.row_factory = None
            old = Database(connection)
            for table in tables & set(old.table_names()):
                rows[table] = list(_readable(old, table))
            device = list(_readable(old, "device"))
    except (sqlite3.Error, OSError) as error:
        if not proves_damage(error):
            raise LocalFault(f"{file}: {error}. It is tried again.") from error
        return _Notes(None, rows, is_whole=False)
    return _Notes(device[0]["generation"] if device else None, rows, is_whole=True)


def _readable(database: "Database", table: str) -> Iterator[dict[str, Any]]:
    """Rows from the beginning to the first that can't be read, then from the end."""
    keys = database.table(table).pks
    for direction in ("", " desc"):
        order = ", ".join(f"[{key}]{direction}" for key in keys)
        try:
            yield from database.table(table).rows_where(order_by=order)
        except sqlite3.Error as error:
            if not proves_damage(error):
                raise
        else:
            return


def _plan(old: OldEpoch) -> Iterator[tuple[int, int, OldBatch | None]]:
    """The runs of an epoch in their order: its batches, and what no batch covers unless it was forgotten."""
    reached = 0
    for batch in old.batches:
        yield from _between(old, reached + 1, batch.run[0] - 1)
        yield *batch.run, batch
        reached = max(reached, batch.run[1])
    yield from _between(old, reached + 1, old.head)


def _between(old: OldEpoch, first: int, last: int) -> Iterator[tuple[int, int, None]]:
    if old.adds_up:
        first = max(first, old.sealed_to + 1)
    if first <= last:
        yield first, last, None


def _without(run: Run, covered: Iterable[Run]) -> Iterator[Run]:
    """What of a run lies outside of others, which come in rising order."""
    first, end = run
    for low, high in covered:
        if low > end:
            break
        if first < low:
            yield first, low - 1
        first = max(first, high + 1)
    if first <= end:
        yield first, end


def _runs(records: Iterable[Proved]) -> Iterator[list[Proved]]:
    """Records without a hole between them, so many as make a batch."""
    run: list[Proved] = []
    size = 0
    for record in records:
        size += len(record.line) + 1
        if run and (record.seq != run[-1].seq + 1 or len(run) == ROWS_MAX or size > BYTES_MAX):
            yield run
            run, size = [], len(record.line) + 1
        run.append(record)
    if run:
        yield run


def _jsonl(records: Iterable[Proved]) -> bytes:
    return b"".join(record.line + b"\n" for record in records)


def _keep_on(go_on: Callable[[], bool]) -> None:
    if not go_on():
        raise Stopped
