"""What a spool holds, counted: for `status`, the heartbeat and the metrics.

May be relied on: nothing here writes. Each answer is one moment of the spool, over the connection of whoever asks or
over one that can't write, beside a running daemon or without one.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from agent.connection import SQL
from agent.schema import reading_database
from wire.heartbeat import RANGES_MAX, EpochState


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spool holds, for `status` and for the heartbeat."""

    device_id: str
    epoch: str | None
    head: int
    unsealed_rows: int
    waiting_rows: int
    accepted_rows: int
    set_aside_rows: int
    settled_rows: int
    lost_rows: int  # to a damaged card; counted until the server has long heard of them
    batches_waiting: int
    oldest_unsettled_at: str | None
    last_accepted_at: str | None
    last_accepted_by: str | None
    last_settled_at: str | None
    spool_bytes: int

    @property
    def unsent_rows(self) -> int:
        """Records that nobody but this device holds yet."""
        return self.unsealed_rows + self.waiting_rows + self.set_aside_rows


@dataclass(frozen=True, slots=True)
class SetAside:
    """A batch that was refused for itself, as a technician sees it."""

    key: str
    rows: int
    refusals: int
    reason: str | None
    refused_by: str | None  # the path that refused it last
    since: str | None


def read_state(path: Path) -> SpoolState:
    """Count what a spool holds without writing to it, whether the daemon runs or not."""
    with reading_database(path) as connection:
        return state_of(connection, path)


def read_set_aside(path: Path) -> list[SetAside]:
    """The batches that were set aside, the oldest first, without writing."""
    with reading_database(path) as connection:
        return [
            SetAside(row["key"], row["rows"], row["refusals"], row["refusal"], row["refused_by"], row["set_aside_at"])
            for row in connection.execute(SQL["list_set_aside"])
        ]


def states_of(connection: sqlite3.Connection) -> tuple[EpochState, ...]:
    """Each epoch as the heartbeat reports it. Runs beyond RANGES_MAX are merged into the last one.

    A lost run is reported until its epoch is forgotten: as long after the server heard of it as settled batches
    are kept, so that a server restored from a backup hears it again.
    """
    heads = connection.execute(SQL["epoch_heads"]).fetchall()
    runs = {statement: _runs(connection, statement) for statement in ("unsettled_runs", "lost_runs")}
    return tuple(
        EpochState(
            row["epoch"],
            row["head"],
            tuple(runs["unsettled_runs"].get(row["number"], ())),
            tuple(runs["lost_runs"].get(row["number"], ())),
        )
        for row in heads
    )


def _runs(connection: sqlite3.Connection, statement: str) -> dict[int, list[tuple[int, int]]]:
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, first, last in connection.execute(SQL[statement]):
        _extend(runs.setdefault(number, []), first, last)
    return runs


def state_of(connection: sqlite3.Connection, path: Path) -> SpoolState:
    """Count what a spool holds over a connection that is open already."""
    row = dict(connection.execute(SQL["state"]).fetchone())
    files = (path, path.with_name(path.name + "-wal"))
    return SpoolState(**row, spool_bytes=sum(file.stat().st_size for file in files if file.exists()))


def _extend(runs: list[tuple[int, int]], first: int, last: int) -> None:
    """Add a run, in rising order, merging it with its neighbour; past RANGES_MAX the last one widens."""
    if runs and (first <= runs[-1][1] + 1 or len(runs) >= RANGES_MAX):
        runs[-1] = (runs[-1][0], max(last, runs[-1][1]))
    else:
        runs.append((first, last))
