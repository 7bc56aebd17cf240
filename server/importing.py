"""`scout-server import`: what `scout-agent export` wrote onto a stick, into bucket and bronze.

    stick ─▶ checked ─▶ bucket, under its own key ─▶ loader ─▶ bronze

May be relied on:
- One road: an object from a stick is loaded from the bucket as one that was uploaded. What comes twice, by the
  stick or by any other way, is a duplicate.
- Only whole objects of known devices reach the bucket. One bad file keeps no good one back, and nothing is
  taken silently: what is missing, damaged or refused is named, with the reason.
- Where the bucket holds a damaged object under a batch's name, the good one is stored as a copy of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from psycopg_pool import ConnectionPool

from server.bucket import Bucket, ObjectExists, ObjectTooLarge
from server.database import named_queries
from server.errors import ServerError
from server.expanding import Unreadable
from server.loader import load_keys
from server.reading import FOREIGN_BYTES_MAX, device_of, read_object
from server.stick import Found, Problem, Refused, Stick, key_of, look_through, read
from wire.batch import BatchName, NotABatchName

COPIES_MAX = 20
"""Damaged objects of one name that are stepped over. So many are a broken bucket, not an accident."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Imported:
    """What one import did, or with `dry_run` would do.

    `objects` and `rows` are the good ones on the stick; the other counts of rows are of objects loaded now.
    """

    dry_run: bool
    objects: int
    rows: int
    stored: int  # objects that are new in the bucket
    loaded_before: int  # objects
    loaded: int  # objects
    waiting: int  # objects that another loader is at, or that the database refused for now
    accepted: int  # rows that bronze did not have
    duplicates: int  # rows
    rejected: int  # rows
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What the database knows of the devices and epochs on the stick."""

    devices: frozenset[str]
    owners: Mapping[str, str]  # by epoch


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the ledger says of an object."""

    key: str
    state: str
    reason: str | None
    accepted: int
    duplicates: int
    rejected: int


def import_paths(pool: ConnectionPool, bucket: Bucket, paths: Sequence[Path], *, dry_run: bool) -> Imported:
    """Take in the objects in these files and folders. Safe to repeat, and at any moment to break off.

    Raises ServerError when a path is not there or the bucket can't be used, psycopg.OperationalError while
    PostgreSQL is down.
    """
    stick = look_through(paths)
    fleet = _fleet(pool, stick)
    keys: list[str] = []
    rows = stored = 0
    for path in stick.files:
        try:
            found = read(stick, path)
            _refuse_strangers(stick, fleet, path, found)
            key, is_new = _put(bucket, found, dry_run=dry_run)
        except Refused as problem:
            stick.problems.append(Problem("refused", str(path), str(problem)))
        except Unreadable as problem:
            stick.problems.append(Problem("damaged", str(path), str(problem)))
        except OSError as error:
            stick.problems.append(Problem("damaged", str(path), f"it can't be read: {error.strerror}"))
        else:
            keys.append(key)
            rows += len(found.delivery.lines) + len(found.delivery.refused)
            stored += is_new
    before = [outcome for outcome in _outcomes(pool, bucket, keys) if outcome.state == "loaded"]
    if not dry_run:
        load_keys(pool, bucket, keys)
    known = {outcome.key for outcome in before}
    now = [outcome for outcome in _outcomes(pool, bucket, keys) if outcome.key not in known]
    loaded = [outcome for outcome in now if outcome.state == "loaded"]
    stick.problems += [
        Problem("damaged", outcome.key, f"the loader refused it: {outcome.reason}")
        for outcome in now
        if outcome.state == "quarantined"
    ]
    log.info("stick_imported", objects=len(keys), stored=stored, loaded=len(loaded), problems=len(stick.problems))
    return Imported(
        dry_run=dry_run,
        objects=len(keys),
        rows=rows,
        stored=stored,
        loaded_before=len(before),
        loaded=len(loaded),
        waiting=sum(outcome.state == "found" for outcome in now),
        accepted=sum(outcome.accepted for outcome in loaded),
        duplicates=sum(outcome.duplicates for outcome in loaded),
        rejected=sum(outcome.rejected for outcome in loaded),
        problems=tuple(stick.problems),
    )


def _fleet(pool: ConnectionPool, stick: Stick) -> _Fleet:
    queries = named_queries("importing")
    devices: set[str] = set()
    epochs: set[str] = set()
    for path in stick.files:
        with suppress(Refused, NotABatchName):  # reading it will say why
            key = key_of(path)
            devices.add(device_of(key))
            epochs.add(BatchName.parse(key).epoch)
    with pool.connection() as connection:
        known = connection.execute(queries["known_devices"], {"device_id": list(devices)})
        owners = connection.execute(queries["owners"], {"epoch": list(epochs)})
        return _Fleet(frozenset(device for (device,) in known), dict(owners.fetchall()))


def _refuse_strangers(stick: Stick, fleet: _Fleet, path: Path, found: Found) -> None:
    """Refuse what lies in the folder of a device that is unknown, or not the one it came from."""
    device_id, name = found.delivery.device_id, found.delivery.name
    if device_id not in fleet.devices:
        raise Refused(f"device {device_id} is unknown: add it first (scout-server tokens issue --name {device_id})")
    owner = fleet.owners.get(name.epoch, device_id) if name else device_id
    for other in {owner, *stick.devices.get(path.name, ())} - {device_id}:
        raise Refused(f"it lies in the folder of {device_id}, and is of device {other}")


def _put(bucket: Bucket, found: Found, *, dry_run: bool) -> tuple[str, bool]:
    """Store an object unless the bucket has it; return its key there, and whether it is new."""
    for key in _keys_for(found):
        try:
            if bucket.version_of(key) is None:
                if not dry_run:
                    bucket.put_new(key, found.content)
                return key, True
            if _holds(bucket, key, found):
                return key, False
        except ObjectExists:
            if _holds(bucket, key, found):  # somebody else just stored it
                return key, False
        except OSError as error:
            raise ServerError(
                f"the bucket can't be used: {error.strerror}. It needs room, and an account that may write there: "
                "root or the server's own."
            ) from error
    raise Refused("the bucket holds something else under this name")


def _keys_for(found: Found) -> Sequence[str]:
    """Its own key; for a batch then those of copies."""
    name = found.delivery.name
    if name is None:
        return (found.key,)
    return [name.again(resend).key for resend in range(name.resend, name.resend + COPIES_MAX)]


def _holds(bucket: Bucket, key: str, found: Found) -> bool:
    try:
        held = read_object(key, bucket.get(key, FOREIGN_BYTES_MAX), bucket="", version="")
    except (ObjectTooLarge, Unreadable):
        return False
    return held.sha256 == found.delivery.sha256


def _outcomes(pool: ConnectionPool, bucket: Bucket, keys: Sequence[str]) -> list[_Outcome]:
    with pool.connection() as connection:
        values = {"bucket": bucket.name, "key": list(keys)}
        return [_Outcome(*row) for row in connection.execute(named_queries("importing")["outcomes"], values)]
