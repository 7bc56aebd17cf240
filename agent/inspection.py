"""What `spool check` sees: all of a spool, looked at without writing, whether the daemon runs or not.

May be relied on: every record, batch and count is looked at once. What can't be read is part of the answer. SQLite's
own shared-memory file (`-shm`) apart, no file changes.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent import damage
from agent.connection import SEQS_PER_EPOCH, SQL
from agent.errors import LocalFault
from agent.holdings import SpoolState, state_of
from agent.schema import VERSION, connect_reading, is_orphaned
from agent.statements import queries_of
from wire.batch import content_hash

PROBLEMS_MAX = 100

_SQL = queries_of("damage")


@dataclass(frozen=True, slots=True)
class EpochSeen:
    """One epoch: what it should hold, and what of that is there."""

    epoch: str
    head: int
    records: int
    missing: int
    altered: int
    lost: int


@dataclass(frozen=True, slots=True)
class MovedAside:
    """A spool that was moved aside, and how far its salvage is."""

    folder: str
    reason: str
    finished_at: str | None
    rows_salvaged: int | None
    rows_lost: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that was seen."""

    file: str
    version: int | None
    problems: tuple[str, ...]  # each a proof of damage
    unreadable: str | None  # why it could not be looked at, where that proves nothing
    state: SpoolState | None
    epochs: tuple[EpochSeen, ...]
    batches_damaged: tuple[str, ...]
    moved_aside: tuple[MovedAside, ...]

    @property
    def damage(self) -> tuple[str, ...]:
        """All that repair would act on."""
        holes = [f"epoch {seen.epoch}: {seen.missing} records missing" for seen in self.epochs if seen.missing]
        altered = [f"epoch {seen.epoch}: {seen.altered} records altered" for seen in self.epochs if seen.altered]
        batches = [f"batch {key} does not match its checksum" for key in self.batches_damaged]
        return (*self.problems, *holes, *altered, *batches)

    @property
    def unsalvaged(self) -> tuple[MovedAside, ...]:
        """Spools that were moved aside and not read to their end."""
        return tuple(folder for folder in self.moved_aside if not folder.finished_at)

    @property
    def exit_status(self) -> int:
        """0 sound, 1 something was lost or waits for salvage, 2 damaged or unreadable."""
        if self.damage or self.unreadable:
            return 2
        return 1 if self.unsalvaged or any(seen.lost for seen in self.epochs) else 0


def inspect(path: Path) -> Inspection:
    """Look at a spool. Raises LocalFault when there is none."""
    if not path.exists() and not is_orphaned(path) and not damage.folders(path):
        raise LocalFault(f"{path} does not exist: no sale was ever taken here, or the config names another place.")
    version: int | None = None
    state: SpoolState | None = None
    epochs: tuple[EpochSeen, ...] = ()
    batches: tuple[str, ...] = ()
    salvages: dict[str, tuple[str | None, int | None, int | None]] = {}
    unreadable: str | None = None
    problems: tuple[str, ...] = ()
    try:
        problems = damage.find(path, lambda: True).reasons
        if path.exists() and not is_orphaned(path):
            with closing(connect_reading(path)) as connection:
                (version,) = connection.execute("pragma user_version").fetchone()
                if version == VERSION:
                    problems = problems or _integrity(path, connection)
                    salvages = _salvages(connection)
                    state, epochs, batches = state_of(connection, path), _epochs(connection), _damaged(connection)
                else:
                    unreadable = f"it has version {version}, this agent knows {VERSION}"
    except (sqlite3.Error, LocalFault) as error:
        if isinstance(error, LocalFault) or not damage.proves_damage(error):
            unreadable = str(error)
        elif not problems:
            problems = (damage.in_words(error),)
    aside = tuple(
        MovedAside(str(folder), damage.reason_of(folder), *salvages.get(folder.name, (None, None, None)))
        for folder in damage.folders(path)
    )
    return Inspection(str(path), version, problems, unreadable, state, epochs, batches, aside)


def _integrity(path: Path, connection: sqlite3.Connection) -> tuple[str, ...]:
    """The thorough check: it also compares every index with its table."""
    rows = tuple(row[0] for row in connection.execute(f"pragma integrity_check({damage.REASONS_KEPT})"))
    damage.raise_if_unreadable(path, rows)
    return () if rows == ("ok",) else rows


def _epochs(connection: sqlite3.Connection) -> tuple[EpochSeen, ...]:
    seen = []
    for row in connection.execute(_SQL["expected"]).fetchall():
        base = row["number"] * SEQS_PER_EPOCH
        run = {"epoch": row["epoch"], "first": base, "last": base + SEQS_PER_EPOCH - 1}
        held, altered = connection.execute(SQL["proof"], run).fetchone()
        seen.append(EpochSeen(row["epoch"], row["head"], held, row["expected"] - held, altered or 0, row["lost"]))
    return tuple(seen)


def _damaged(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Batches whose bytes are no longer what was sealed; one batch is in memory at a time."""
    damaged = []
    for batch in connection.execute(_SQL["sealed"]).fetchall():
        base = batch["epoch_number"] * SEQS_PER_EPOCH
        run = {"first": base + batch["first_seq"], "last": base + batch["last_seq"]}
        (jsonl,) = connection.execute(SQL["jsonl"], run).fetchone()
        if content_hash((jsonl or b"") + b"\n") != batch["sha256"]:
            damaged.append(batch["key"])
    return tuple(damaged[:PROBLEMS_MAX])


def _salvages(connection: sqlite3.Connection) -> dict[str, tuple[str | None, int | None, int | None]]:
    return {folder: (at, salvaged, lost) for folder, at, salvaged, lost in connection.execute(_SQL["salvages"])}
