"""What is missing is got again, without a hand: in bronze from the bucket, else from the device; beyond from bronze.

    missing ─▶ its batches' objects are made `found`: the loader takes them again
        └─▶ no object, or a damaged one: the batch is `gone` (not settled any more), and the device is asked anew:
            it awaits all that it keeps again, and is asked for copies of what is not settled
    in bronze, but not in production or silver ─▶ its load is due again: the ETL moves what is not there

May be relied on:
- Every epoch is looked at, the one not looked at for longest first. A run reads the rows of so many seqs at most,
  plus one epoch, however large the fleet.
- What can't be got again is tried seldomer each time, and at once when more is missing; its device is asked a few
  times and no more. What an operator accepted as lost is left alone.
- Nothing is taken away: no row of bronze is touched, and a batch is only called `gone` when rows of it are.
- The device needs nothing new for this, and its call home costs no more than before: it hears another generation.
"""

from dataclasses import dataclass
from functools import partial

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
    heads_max: int = 200  # of a fleet of thousands, some each run
    seqs_max: int = 100_000  # rows that one run reads: a fraction of a second
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


@dataclass(frozen=True, slots=True)
class _Missing:
    device_id: str
    epoch: str
    seqs: str  # multiranges, as the database writes them
    seqs_of_device: str  # without what the device itself lost


def repair(pool: ConnectionPool, bucket: Bucket, limits: RepairLimits = REPAIR_LIMITS) -> Repaired:
    """Look for missing seqs, and see that they come again. Load afterwards.

    Raises psycopg.OperationalError while PostgreSQL is down; nothing is lost by calling again.
    """
    values = {"check_s": limits.check_s, "heads_max": limits.heads_max, "seqs_max": limits.seqs_max}
    claimed = transact(pool, lambda connection: connection.execute(_QUERIES["claim"], values).fetchall())
    if not claimed:
        return Repaired()
    epochs = columns(("device_id", "epoch"), claimed)
    missing = transact(
        pool, lambda connection: [_Missing(*row) for row in connection.execute(_QUERIES["missing"], epochs)]
    )
    loads = transact(pool, lambda connection: connection.execute(_QUERIES["move_again"], epochs).rowcount)
    if loads:
        log.warning("loads_due_again", loads=loads)
    whole = set(claimed) - {(item.device_id, item.epoch) for item in missing}
    transact(
        pool, lambda connection: connection.execute(_QUERIES["forget"], columns(("device_id", "epoch"), sorted(whole)))
    )
    tried = [transact(pool, partial(_try, bucket=bucket, missing=item, limits=limits)) for item in missing]
    return Repaired(
        epochs=sum(each.epochs for each in tried),
        objects=sum(each.objects for each in tried),
        devices=sum(each.devices for each in tried),
        loads=loads,
    )


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
