"""Each object of the bucket into bronze, once, however many loaders run at once on however many machines.

    listed, or awaited by a device ─▶ found ─▶ loaded          its lines are in bronze or line quarantine
                                        │  └─▶ quarantined     unreadable, or not what its name says
                                        └─▶ postponed          the database refused it: tried again later

May be relied on:
- Discovery only writes `found` rows; whoever claims one loads it. A claim is a row lock: a loader killed in
  the middle leaves the row `found`, and nothing of the object.
- An object's lines and its ledger row commit together.
- One bad object never blocks the next: unreadable ones are quarantined, and where the database refuses a
  claim of several, or the bucket fails in the middle of one, each is tried alone.
- Memory does not grow with an object: its lines go from the bucket to the database as they come.
- A batch that a device awaits is looked up by its exact name; where it is damaged or absent, the device is
  asked for a copy.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import chain, islice

import psycopg
import structlog
from psycopg_pool import ConnectionPool

from server.bronze import Staging, batch_and_resend, columns, land, quarantine_object, staging
from server.bucket import Bucket, BucketFault, InvalidKey, NoSuchObject, ObjectInfo
from server.database import named_queries, transact
from server.expanding import Unreadable
from server.reading import FOREIGN_BYTES_MAX, content_of, device_of
from wire.batch import BatchName, NotABatchName
from wire.record import format_instant

# SQLSTATE classes of errors that say something of the server, its settings or the way to it, not of the data.
_OF_THE_SERVER = ("08", "25", "28", "3D", "42", "53", "57", "58")

Progress = Callable[[int, int], None]
"""Hears how many objects are done, of how many."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one step takes on, and how long an awaited batch may stay away."""

    listed_max: int = 1000  # objects compared with the ledger at once: one page of a listing
    claim_objects_max: int = 200  # in one transaction: beyond, a commit costs next to nothing per object
    claim_bytes_max: int = 32 * 1024 * 1024  # of lines, plus one object: so much is read again after a fault
    awaited_max: int = 1000  # names looked up in one run: across a network, half a minute's worth
    absent_s: float = 60.0  # an upload is answered before the object is listed
    resend_s: float = 3600.0  # a copy asked for that has not come by then is asked for under the next number


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What one run did: objects found, loaded, quarantined and postponed; lines of those loaded."""

    found: int = 0
    loaded: int = 0
    quarantined: int = 0
    postponed: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class _Claim:
    file_id: int
    key: str
    version: str
    device_id: str
    bytes: int
    written_at: datetime | None  # the file that an operator imported


@dataclass(frozen=True, slots=True)
class _Awaited:
    device_id: str
    key: str
    resend: int


def load(
    pool: ConnectionPool,
    bucket: Bucket,
    *,
    today: date,
    day: date | None = None,
    sweep: bool = False,
    lists: bool = True,
    stored: Sequence[str] = (),
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> LoadSummary:
    """Load what is new: awaited names and the folders of today (UTC) and yesterday; return once none is left.

    `day`: that folder and nothing else. `sweep`: the whole bucket. `lists` false: names alone, those awaited and
    those `stored` (keys). Raises psycopg.OperationalError while
    PostgreSQL is down, and BucketFault while the bucket is away; nothing is lost by calling again.
    """
    bucket.check()  # a bucket that is away must not look empty: devices would be asked for everything again
    tally: Counter[str] = Counter()
    awaited = [] if day else _due_awaited(pool, limits)
    named = chain(_look_up(bucket, awaited), _stored(bucket, stored))
    tally["found"] += _discover(pool, bucket, named, limits)
    folders = [f"{day}/"] if day else [""] if sweep else [f"{today}/", f"{today - timedelta(days=1)}/"]
    for folder in folders if lists else ():
        tally["found"] += _discover(pool, bucket, bucket.list(folder), limits)
    tally += _load_found(pool, bucket, f"{day}/" if day else "", limits, progress)
    if awaited:
        transact(pool, lambda connection: _answer_awaited(connection, awaited, limits))
    return LoadSummary(**tally)


def load_keys(
    pool: ConnectionPool,
    bucket: Bucket,
    keys: Sequence[str],
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> LoadSummary:
    """Load exactly these objects, wherever they lie, and what else was found and waits. Raises as `load` does."""
    tally: Counter[str] = Counter(found=_discover(pool, bucket, _stored(bucket, keys), limits))
    tally += _load_found(pool, bucket, "", limits, progress)
    return LoadSummary(**tally)


def check_object(bucket: Bucket, key: str) -> None:
    """Read an object to its end and take nothing of it. Raises as `Bucket.open` does, and Unreadable."""
    with bucket.open(key) as stored:
        for _ in content_of(key, stored).lines:
            pass


def _due_awaited(pool: ConnectionPool, limits: Limits) -> list[_Awaited]:
    with pool.connection() as connection:
        values = {"absent_s": limits.absent_s, "names_max": limits.awaited_max}
        return [_Awaited(*row) for row in connection.execute(named_queries("loader")["due_awaited"], values)]


def _look_up(bucket: Bucket, awaited: Iterable[_Awaited]) -> Iterator[ObjectInfo]:
    """Yield those awaited batches, and the copies asked for, that are in the bucket."""
    for item in awaited:
        try:
            name = BatchName.parse(item.key)
        except NotABatchName:
            continue  # a device may report what it likes: no such object can settle it
        if name.device_id != item.device_id:
            continue
        yield from _stored(bucket, dict.fromkeys((name.key, name.again(item.resend).key)))


def _stored(bucket: Bucket, keys: Iterable[str]) -> Iterator[ObjectInfo]:
    """Yield those of these objects that are in the bucket."""
    for key in keys:
        version = bucket.version_of(key)
        if version is not None:
            yield ObjectInfo(key, version, 0)


def _discover(pool: ConnectionPool, bucket: Bucket, listed: Iterator[ObjectInfo], limits: Limits) -> int:
    """Note the objects that the ledger does not have; return how many. Takes a page of them at a time."""
    found = 0
    while page := list(islice(listed, limits.listed_max)):
        found += _discover_page(pool, bucket, page)
    return found


def _discover_page(pool: ConnectionPool, bucket: Bucket, page: Sequence[ObjectInfo]) -> int:
    rows = [
        (item.key, item.version, _device_or_none(item.key), item.bytes, *batch_and_resend(item.key)) for item in page
    ]
    values = columns(("key", "version", "device_id", "bytes", "batch", "resend"), rows)
    parameters = values | {"bucket": bucket.name}
    query = named_queries("loader")["discover"]
    return transact(pool, lambda connection: connection.execute(query, parameters).rowcount)


def _load_found(
    pool: ConnectionPool, bucket: Bucket, prefix: str, limits: Limits, progress: Progress | None
) -> Counter[str]:
    """Load claim after claim until nothing is left to claim."""
    tally: Counter[str] = Counter()
    waiting = _waiting(pool, bucket, prefix) if progress else 0
    while True:
        if progress and waiting:
            done = tally["loaded"] + tally["quarantined"] + tally["postponed"]
            progress(done, max(done, waiting))
        step = _load_next(pool, bucket, prefix, limits)
        if not step:
            return tally
        tally += step


def _waiting(pool: ConnectionPool, bucket: Bucket, prefix: str) -> int:
    """Count the objects that could be claimed now."""
    with pool.connection() as connection:
        values = {"bucket": bucket.name, "prefix": prefix}
        row = connection.execute(named_queries("loader")["waiting"], values).fetchone()
        assert row is not None, "a count is one row"
        return int(row[0])


def _load_next(pool: ConnectionPool, bucket: Bucket, prefix: str, limits: Limits) -> Counter[str]:
    """Claim some objects and load them in one transaction; an empty count when there were none to claim."""
    claims: list[_Claim] = []

    def claim_and_load(connection: psycopg.Connection) -> Counter[str]:
        values = {"bucket": bucket.name, "prefix": prefix, "objects_max": limits.claim_objects_max}
        claimed = connection.execute(named_queries("loader")["claim"], values)
        claims[:] = [_Claim(*row) for row in claimed]
        return _load_claims(connection, bucket, claims, limits.claim_bytes_max)

    try:
        return transact(pool, claim_and_load)
    except Exception as error:
        if _is_outage(error) or not claims:
            raise
        log.warning("claim_split", objects=len(claims), cause=_cause(error))
    return sum((_load_alone(pool, bucket, claim) for claim in claims), Counter())


def _load_alone(pool: ConnectionPool, bucket: Bucket, claim: _Claim) -> Counter[str]:
    """Load one object in a transaction of its own; count a failure in the ledger and leave it for later."""
    queries = named_queries("loader")

    def claim_and_load(connection: psycopg.Connection) -> Counter[str]:
        claimed = connection.execute(queries["claim_one"], {"file_id": claim.file_id})
        return _load_claims(connection, bucket, [_Claim(*row) for row in claimed], 0)

    try:
        return transact(pool, claim_and_load)
    except Exception as error:
        if _is_outage(error):
            raise
        if isinstance(error, BucketFault):
            bucket.check()  # is it all of the bucket?
        reason = f"it could not be loaded: {_cause(error)}"
        log.error("object_postponed", file_id=claim.file_id, key=claim.key, reason=reason)  # noqa: TRY400
        values = {"file_id": claim.file_id, "reason": reason}
        transact(pool, lambda connection: connection.execute(queries["postpone"], values))
        return Counter(postponed=1)


def _load_claims(
    connection: psycopg.Connection, bucket: Bucket, claims: Sequence[_Claim], bytes_max: int
) -> Counter[str]:
    """Load claimed objects; those that come after `bytes_max` bytes are left to the next claim."""
    if not claims:
        return Counter()
    connection.execute(named_queries("loader")["take_time"])
    unreadable: list[tuple[_Claim, str]] = []
    with staging(connection) as staged:
        for claim in claims:
            if staged.bytes > bytes_max:
                break
            try:
                _stage(staged, bucket, claim)
            except Unreadable as problem:
                unreadable.append((claim, str(problem)))
    for claim, reason in unreadable:
        log.warning("object_quarantined", key=claim.key, reason=reason)
        named = {"bucket": bucket.name, "key": claim.key, "version": claim.version, "device_id": claim.device_id}
        quarantine_object(connection, **named, reason=reason)
    landed = land(connection, staged).values()
    return Counter(
        loaded=len(landed),
        quarantined=len(unreadable),
        accepted=sum(each.accepted for each in landed),
        duplicates=sum(each.duplicates for each in landed),
        rejected=sum(each.rejected for each in landed),
    )


def _stage(staged: Staging, bucket: Bucket, claim: _Claim) -> None:
    """Read an object into the staging table. Raises Unreadable, and BucketFault also in the middle of it."""
    if claim.bytes > FOREIGN_BYTES_MAX:
        raise Unreadable(f"it is larger than {FOREIGN_BYTES_MAX} bytes")
    try:
        with bucket.open(claim.key) as stored:
            content = content_of(claim.key, stored)
            if claim.written_at:
                content = replace(content, captured_at=format_instant(claim.written_at), clock="file")
            staged.take(claim.file_id, content)
    except InvalidKey as problem:
        raise Unreadable(f"its name is refused: {problem}") from None
    except NoSuchObject:
        raise Unreadable("it was listed, and is gone from the bucket") from None


def _answer_awaited(connection: psycopg.Connection, awaited: Sequence[_Awaited], limits: Limits) -> None:
    """Strike what is settled by now, and ask for copies of what is damaged or stays away."""
    queries = named_queries("loader")
    values = columns(("device_id", "key"), [(item.device_id, item.key) for item in awaited])
    connection.execute(queries["forget_settled"], values)
    waits = {"absent_s": limits.absent_s, "resend_s": limits.resend_s}
    answered = connection.execute(queries["ask_again"], values | waits)
    asked = sum(again for (again,) in answered)
    if asked:
        log.warning("copies_asked_for", count=asked)


def _device_or_none(key: str) -> str:
    """Return the device whose folder the key lies in, or nothing: reading the object will say why."""
    try:
        return device_of(key)
    except Unreadable:
        return ""


def _is_outage(error: Exception) -> bool:
    """Whether the error would meet every object alike, so that calling again later is all that helps."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_OF_THE_SERVER)


def _cause(error: Exception) -> str:
    """Name the error without its message, which may quote the data; a bucket's is our own."""
    if isinstance(error, BucketFault):
        return str(error)
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} ({state})" if state else type(error).__name__
