"""Where every sale is that a device ever took: the audit of custody, and the gaps that operators accept.

May be relied on:
- Every seq of an epoch up to its head is counted once; what would be counted twice or not at all is a problem of
  its own, and never passed over.
- All of one audit is one moment of the database, though loaders and the ETL run on.
- It reads and changes nothing; the repair of what is missing needs no audit.
- What it costs follows the rows of bronze, never what devices claim.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.multirange import Multirange

from server.database import named_queries
from server.errors import ServerError

_QUERIES = named_queries("audit")

T = TypeVar("T")
Run = tuple[int, int]
"""First and last seq."""


class NothingMissing(ServerError):
    """Nothing is missing there."""


@dataclass(frozen=True, slots=True)
class EpochCustody:
    """Where the seqs 1..head of an epoch are. The classes add up to the head."""

    device_id: str
    epoch: str
    head: int
    bronze: int
    quarantined: int
    retired: int
    unsettled: int  # the device answers for them
    accepted: int  # as lost, by an operator
    lost: int  # the device's card lost them
    missing: int  # nobody answers for them
    above_head: int  # held, and not reported yet
    missing_runs: tuple[Run, ...]
    lost_runs: tuple[Run, ...]
    tries: int  # how often the server tried to get them again
    next_try_at: datetime | None

    @property
    def is_whole(self) -> bool:
        """Whether every seq is in exactly one class."""
        held = self.bronze + self.quarantined + self.retired
        return self.head == held + self.unsettled + self.accepted + self.lost + self.missing


@dataclass(frozen=True, slots=True)
class DaySums:
    """How many rows of a device's day each layer has. The day is the one on which the ledger first knew of them."""

    device_id: str
    day: date
    ledger: int  # what was loaded, and replayed out of quarantine
    bronze: int
    retired: int
    accepted: int  # as lost
    waiting: int  # in bronze, for the ETL
    edge: int  # scout.bronze_edge_raw
    production: int  # scout.bronze_transactions_raw
    silver: int  # scout.silver_edge_events

    @property
    def meet(self) -> bool:
        """Whether the layers agree."""
        moved = self.bronze - self.waiting
        return (
            self.ledger == self.bronze + self.retired + self.accepted
            and moved == self.edge == self.production == self.silver
        )


@dataclass(frozen=True, slots=True)
class Fork:
    """Seqs of an epoch at which a copied spool delivered other records. All of them are in bronze."""

    device_id: str
    epoch: str
    runs: tuple[Run, ...]
    records: int
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class SilentDevice:
    """A device that should have spoken and did not."""

    device_id: str
    heard_at: datetime
    silent_s: float
    usual_pause_s: float  # its longest silence of the two weeks before


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a device reports that can't be so."""

    device_id: str
    kind: str
    detail: str
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """What a device said last of the records it holds unsettled."""

    waiting: int
    accepted: int
    set_aside: int


@dataclass(frozen=True, slots=True)
class Audit:
    """One moment of the custody of every sale."""

    epochs: tuple[EpochCustody, ...]
    sums: tuple[DaySums, ...]
    forks: tuple[Fork, ...]
    silent: tuple[SilentDevice, ...]
    alarms: tuple[Alarm, ...]
    said: dict[str, Said]

    def problems(self) -> list[str]:
        """What keeps it from being clean, in words; forks don't, for all of their records are held."""
        with_gaps = [epoch for epoch in self.epochs if epoch.missing + epoch.lost]
        found = [
            (sum(epoch.missing + epoch.lost for epoch in with_gaps), "missing sales"),
            (sum(not epoch.is_whole for epoch in self.epochs), "epochs not counted once"),
            (sum(not day.meet for day in self.sums), "days whose sums don't meet"),
            (len(self.silent), "silent devices"),
            (len(self.alarms), "open alarms"),
        ]
        return [f"{what}: {count:,}" for count, what in found if count]


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of seqs that nobody holds; with `why`, one that an operator accepted as lost."""

    device_id: str
    epoch: str
    first_seq: int
    last_seq: int
    seqs: int
    lost_on_device: bool
    why: str | None
    accepted_at: datetime | None


def audit(connection: psycopg.Connection, *, device_id: str | None = None, since: date | None = None) -> Audit:
    """Look where every sale is: of all devices or one; of epochs, days and forks heard of since a day (UTC)."""
    values = {"device_id": device_id, "since": since}
    with connection.transaction():
        connection.execute(_QUERIES["one_moment"])
        return Audit(
            tuple(_epochs(connection, values)),
            tuple(_all(connection, DaySums, "sums", values)),
            tuple(
                Fork(device, epoch, _runs(seqs), records, seen_at)
                for device, epoch, seqs, records, seen_at in connection.execute(_QUERIES["forks"], values)
            ),
            tuple(_all(connection, SilentDevice, "silent", values)),
            tuple(_all(connection, Alarm, "alarms", values)),
            {device: Said(*rows) for device, *rows in connection.execute(_QUERIES["said"], values)},
        )


def silent_devices(connection: psycopg.Connection) -> list[SilentDevice]:
    """The devices that should have spoken and did not."""
    return _all(connection, SilentDevice, "silent", {"device_id": None})


def open_alarms(connection: psycopg.Connection) -> list[Alarm]:
    """What devices report that can't be so."""
    return _all(connection, Alarm, "alarms", {"device_id": None})


def list_gaps(connection: psycopg.Connection, *, device_id: str | None, accepted: bool) -> list[Gap]:
    """The runs that nobody holds, of all devices or one; with `accepted`, those that were accepted too."""
    return _all(connection, Gap, "gaps", {"device_id": device_id, "accepted": accepted})


def accept_gap(connection: psycopg.Connection, device_id: str, epoch: str, run: Run, why: str) -> int:
    """Accept that what is missing now of a run is lost; return how many seqs. Raises NothingMissing."""
    values = {"device_id": device_id, "epoch": epoch, "first_seq": run[0], "last_seq": run[1], "why": why}
    with connection.transaction():
        connection.execute(_QUERIES["lock_acceptances"])
        row = connection.execute(_QUERIES["accept"], values).fetchone()
    if row is None:
        raise NothingMissing(
            f"of {device_id} epoch {epoch} nothing is missing in {run[0]}-{run[1]} that was not accepted before: "
            f"'scout-server gaps list --device {device_id} --all' shows what is."
        )
    return int(row[0])


def _epochs(connection: psycopg.Connection, values: Mapping[str, object]) -> Iterator[EpochCustody]:
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_QUERIES["epochs"], values):
            runs = {name: _runs(row.pop(name)) for name in ("missing_runs", "lost_runs")}
            yield EpochCustody(**row | runs)


def _runs(seqs: Multirange[int]) -> tuple[Run, ...]:
    """The runs of a multirange, which the database gives with their upper bounds excluded."""
    return tuple((run.lower, run.upper - 1) for run in seqs if run.lower is not None and run.upper is not None)


def _all(connection: psycopg.Connection, shape: type[T], query: str, values: Mapping[str, object]) -> list[T]:
    with connection.cursor(row_factory=class_row(shape)) as cursor:
        return cursor.execute(_QUERIES[query], values).fetchall()
