"""What is missing is got again, without a hand: in bronze from the bucket, else from the device; beyond from bronze.

    missing ─▶ its batches' objects are made `found`: the loader takes them again
        └─▶ no object, or a damaged one: the batch is `gone` (not settled any more), and the device is asked anew:
            it awaits all that it keeps again, and is asked for copies of what is not settled
    in bronze, but not in production or silver ─▶ its load is due again: the ETL moves what is not there

May be relied on:
- Every epoch is looked at, the one not looked at for longest first. A run lasts a fraction of a second, plus some
  epochs, however large the fleet. What an epoch costs follows its rows: heads that a device makes up cost nothing.
- What can't be got again is tried seldomer each time, and at once when more is missing; its device is asked a few
  times and no more. What an operator accepted as lost is left alone.
- Nothing is taken away: no row of bronze is touched, and a batch is only called `gone` when rows of it are.
- The device needs nothing new for this, and its call home costs no more than before: it hears another generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import psycopg
import structlog
from psycopg_pool import ConnectionPool

from server.bronze import columns
from server.bucket import Bucket
from server.database import named_queries, transact

_QUERIES = named_queries("repair")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RepairLimits:
    """How much one run looks at, and how long it leaves alone what it has looked at."""

    check_s: float = 600.0  # an epoch is not looked at more often: rows vanish seldom
    heads_max: int = 10  # looked at together: of 10,000 rows each, 0.4 s
    spent_s_max: float = 0.25  # then the next run goes on, seconds later
    wait_s: float = 60.0  # until the second try: the loader has taken what it can by then
    asks_max: int = 3  # each makes the device keep what it has for longer; one that answered has no more to give


REPAIR_LIMITS = RepairLimits()


@dataclass(frozen=True, slots=True)
class Repaired:
    """What one run did: epochs with missing seqs that it tried, objects to load, devices asked, loads to move again."""

    epochs: int = 0
    objects: int = 0
    devices: int = 0
    loads: int = 0

    def __add__(self, other: "Repaired") -> "Repaired":
        return Repaired(
            self.epochs + other.epochs,
            self.objects + other.objects,
            self.devices + other.devices,
            self.loads + other.loads,
        )


@dataclass(frozen=True, slots=True)
class _Missing:
    device_id: str
    epoch: str
    seqs: str  # multiranges, as the database writes them
    seqs_of_device: str  # without what the device itself lost


def repair(
    pool: ConnectionPool,
    bucket: Bucket,
    limits: RepairLimits = REPAIR_LIMITS,
    monotonic_s: Callable[[], float] = monotonic,
) -> Repaired:
    """Look for what is missing, and see that it comes again. Load and move afterwards.

    Raises psycopg.OperationalError while PostgreSQL is down; nothing is lost by calling again.
    """
    began, done, seen = monotonic_s(), Repaired(), set[tuple[str, str]]()
    values = {"check_s": limits.check_s, "heads_max": limits.heads_max}
    while monotonic_s() - began < limits.spent_s_max:
        claimed = transact(pool, lambda connection: set(connection.execute(_QUERIES["claim"], values).fetchall()))
        if claimed <= seen:
            break
        seen |= claimed
        done += _repair(pool, bucket, sorted(claimed), limits)
    return done


def _repair(pool: ConnectionPool, bucket: Bucket, claimed: Sequence[tuple[str, str]], limits: RepairLimits) -> Repaired:
    epochs = columns(("device_id", "epoch"), claimed)
    missing = transact(
        pool, lambda connection: [_Missing(*row) for row in connection.execute(_QUERIES["missing"], epochs)]
    )
    whole = set(claimed) - {(item.device_id, item.epoch) for item in missing}
    transact(
        pool, lambda connection: connection.execute(_QUERIES["forget"], columns(("device_id", "epoch"), sorted(whole)))
    )
    loads = transact(pool, lambda connection: connection.execute(_QUERIES["move_again"], epochs).rowcount)
    if loads:
        log.warning("loads_due_again", loads=loads)
    tried = [transact(pool, partial(_try, bucket=bucket, missing=item, limits=limits)) for item in missing]
    return sum(tried, Repaired(loads=loads))


def _try(connection: psycopg.Connection, bucket: Bucket, missing: _Missing, limits: RepairLimits) -> Repaired:
    epoch = {"device_id": missing.device_id, "epoch": missing.epoch}
    seqs = epoch | {"seqs": missing.seqs}
    begun = connection.execute(_QUERIES["begin_try"], seqs | {"wait_s": limits.wait_s}).fetchone()
    if begun is None:
        return Repaired()
    tries, asked_before = begun
    objects = connection.execute(_QUERIES["reload"], seqs | {"bucket": bucket.name}).rowcount
    gone = connection.execute(_QUERIES["renounce"], seqs).rowcount
    asked = 0
    if asked_before < limits.asks_max:
        asked = connection.execute(_QUERIES["ask_anew"], epoch | {"seqs": missing.seqs_of_device}).rowcount
    if asked:
        connection.execute(_QUERIES["count_asked"], epoch)
    log.warning("missing_seqs_tried", **epoch, tries=tries, objects=objects, batches_gone=gone, asked=bool(asked))
    return Repaired(1, objects, asked)
