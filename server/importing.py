"""`scout-server import`: what `scout-agent export` wrote onto a stick, and older devices' files, into bronze.

    stick, folder, zip ─▶ checked ─▶ bucket, under its own key ─▶ loader ─▶ bronze

May be relied on:
- One road: an object from a stick is loaded from the bucket as one that was uploaded. What comes twice, by the
  stick or by any other way, is a duplicate; breaking off and beginning again costs nothing.
- Only whole objects of known devices reach the bucket. One bad file keeps no good one back, and nothing is
  taken silently: what is missing, damaged or refused is named, with the reason.
- Where the bucket holds a damaged object under a batch's name, the good one is stored as a copy of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from psycopg_pool import ConnectionPool

from server import backlog, stick, tokens, tree
from server.bronze import columns
from server.bucket import Bucket, ObjectExists, ObjectTooLarge
from server.database import named_queries, transact
from server.errors import ServerError
from server.expanding import Unreadable
from server.loader import load_keys
from server.reading import FOREIGN_BYTES_MAX, device_of, read_object
from server.stick import Found, Stick
from server.tree import File, Problem, Refused, Tree
from wire.batch import BatchName, NotABatchName

COPIES_MAX = 20
"""Damaged objects of one name that are stepped over. So many are a broken bucket, not an accident."""

FILES_AT_ONCE = 200
"""Files that are stored and then loaded together: so many are to be loaded later, when it is broken off."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Imported:
    """What one import did, or with `dry_run` would do.

    `objects` and `rows` are the good ones that were found; the other counts of rows are of objects loaded now.
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
    left_alone: int  # files of other kinds
    devices: Mapping[str, int]  # good objects of each
    devices_added: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the ledger says of an object."""

    key: str
    state: str
    reason: str | None
    is_of_before: bool  # loaded before this import began; the server's own loader may be quicker than ours
    accepted: int
    duplicates: int
    rejected: int


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What the database knew of the devices and epochs before."""

    devices: frozenset[str]
    owners: Mapping[str, str]  # by epoch


def import_paths(
    pool: ConnectionPool,
    bucket: Bucket,
    paths: Sequence[Path],
    *,
    dry_run: bool,
    add_devices: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Imported:
    """Take in what lies in these files, folders and zips. Safe to repeat, and at any moment to break off.

    With `add_devices`, devices that are not known become known. `progress` hears how many files of how many are
    done. Raises ServerError when a path is not there or the bucket can't be used, psycopg.OperationalError while
    PostgreSQL is down.
    """
    with tree.opened(paths) as found:
        exported = stick.look_through(found.files)
        older = [file for file in found.files if backlog.is_of_the_backlog(file.path)]
        fleet = _fleet(pool, exported, older)
        work = _Import(pool, bucket, exported, fleet, dry_run=dry_run, add_devices=add_devices)
        work.problems += [*found.problems, *exported.problems, *_named_for_nothing(paths, found, exported, older)]
        files = [*exported.files, *older]
        for start in range(0, len(files), FILES_AT_ONCE):
            part = files[start : start + FILES_AT_ONCE]
            work.take(part)
            progress(start + len(part), len(files))
        work.tally["left_alone"] = len(found.files) - len(files)
        return work.outcome()


class _Import:
    """One import under way."""

    def __init__(
        self,
        pool: ConnectionPool,
        bucket: Bucket,
        exported: Stick,
        fleet: _Fleet,
        *,
        dry_run: bool,
        add_devices: bool,
    ) -> None:
        self.problems: list[Problem] = []
        self.tally: Counter[str] = Counter()
        self._pool = pool
        self._bucket = bucket
        self._exported = exported
        self._fleet = fleet
        self._dry_run = dry_run
        self._add_devices = add_devices
        self._began = _now(pool)
        self._added: set[str] = set()
        self._devices: Counter[str] = Counter()
        self._keys: set[str] = set()

    def take(self, files: Sequence[File]) -> None:
        """Store these files' objects and load them; note what can't be taken."""
        stored: dict[str, str | None] = {}  # when it was written, by key
        for file in files:
            try:
                found = self._read(file)
                self._refuse_strangers(file, found)
                key, is_new = _put(self._bucket, found, dry_run=self._dry_run)
            except Refused as problem:
                self.problems.append(Problem("refused", str(file.path), str(problem)))
            except Unreadable as problem:
                self.problems.append(Problem("damaged", str(file.path), str(problem)))
            except OSError as error:
                self.problems.append(Problem("damaged", str(file.path), f"it can't be read: {error.strerror}"))
            else:
                if key not in self._keys:  # the same file may lie in two copies of a backup
                    self._keys.add(key)
                    stored[key] = found.captured_at
                    self._count(found, is_new=is_new)
        self._load(stored)

    def outcome(self) -> Imported:
        """What it did."""
        done = Imported(
            dry_run=self._dry_run,
            objects=len(self._keys),
            devices=dict(sorted(self._devices.items())),
            devices_added=tuple(sorted(self._added)),
            problems=tuple(self.problems),
            **{name: self.tally[name] for name in _TALLIED},
        )
        log.info("imported", objects=done.objects, stored=done.stored, loaded=done.loaded, problems=len(done.problems))
        return done

    def _read(self, file: File) -> Found:
        if not backlog.is_of_the_backlog(file.path):
            return stick.read(self._exported, file)
        return backlog.read(file, backlog.device_of(file, self._fleet.devices))

    def _refuse_strangers(self, file: File, found: Found) -> None:
        """Refuse what lies in the folder of a device that is unknown, or not the one it came from."""
        device_id, name = found.delivery.device_id, found.delivery.name
        if device_id not in self._fleet.devices | self._added:
            if not self._add_devices:
                raise Refused(
                    f"device {device_id} is unknown: let it in with --add-devices, or first "
                    f"(scout-server tokens issue --name {device_id})"
                )
            if not self._dry_run:
                with self._pool.connection() as connection:
                    tokens.add_device(connection, device_id)
            self._added.add(device_id)
        owner = self._fleet.owners.get(name.epoch, device_id) if name else device_id
        for other in {owner, *self._exported.devices.get(file.path.name, ())} - {device_id}:
            raise Refused(f"it lies in the folder of {device_id}, and is of device {other}")

    def _count(self, found: Found, *, is_new: bool) -> None:
        self._devices[found.delivery.device_id] += 1
        self.tally["rows"] += len(found.delivery.lines) + len(found.delivery.refused)
        self.tally["stored"] += is_new

    def _load(self, stored: Mapping[str, str | None]) -> None:
        if not self._dry_run:
            _note_times(self._pool, self._bucket, stored)
            load_keys(self._pool, self._bucket, list(stored))
        for item in _outcomes(self._pool, self._bucket, stored, self._began):
            if item.is_of_before:
                self.tally["loaded_before"] += 1
            elif item.state == "quarantined":
                self.problems.append(Problem("damaged", item.key, f"the loader refused it: {item.reason}"))
            elif item.state == "found":
                self.tally["waiting"] += 1
            else:
                self.tally["loaded"] += 1
                self.tally["accepted"] += item.accepted
                self.tally["duplicates"] += item.duplicates
                self.tally["rejected"] += item.rejected


_TALLIED = (
    *("rows", "stored", "loaded_before", "loaded", "waiting"),
    *("accepted", "duplicates", "rejected", "left_alone"),
)


def _fleet(pool: ConnectionPool, exported: Stick, older: Sequence[File]) -> _Fleet:
    queries = named_queries("importing")
    devices = {name for file in older for name in backlog.names_around(file)}
    epochs: set[str] = set()
    for file in exported.files:
        with suppress(Refused, NotABatchName):  # reading it will say why
            key = stick.key_of(file.path)
            devices.add(device_of(key))
            epochs.add(BatchName.parse(key).epoch)
    with pool.connection() as connection:
        known = connection.execute(queries["known_devices"], {"device_id": list(devices)})
        owners = connection.execute(queries["owners"], {"epoch": list(epochs)})
        return _Fleet(frozenset(device for (device,) in known), dict(owners.fetchall()))


def _named_for_nothing(paths: Sequence[Path], found: Tree, exported: Stick, older: Sequence[File]) -> Iterator[Problem]:
    """Files that the operator named, and that are nothing that can be imported."""
    taken = {file.path for file in (*exported.files, *older)}
    for path in {path.resolve() for path in paths} & {file.path for file in found.files} - taken:
        reason = "it is no export's object (DAY/DEVICE/FILE), and its name ends in none of .json and .jsonl"
        yield Problem("refused", str(path), reason)


def _note_times(pool: ConnectionPool, bucket: Bucket, stored: Mapping[str, str | None]) -> None:
    """Write into the ledger when these files were written, before any loader comes to them."""
    rows = [
        (key, bucket.version_of(key), device_of(key), captured_at) for key, captured_at in stored.items() if captured_at
    ]
    values = columns(("key", "version", "device_id", "captured_at"), rows) | {"bucket": bucket.name}
    query = named_queries("importing")["note_times"]
    transact(pool, lambda connection: connection.execute(query, values))


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


def _now(pool: ConnectionPool) -> datetime:
    with pool.connection() as connection:
        (at,) = connection.execute(named_queries("importing")["now"]).fetchone() or (None,)
    assert isinstance(at, datetime)
    return at


def _outcomes(pool: ConnectionPool, bucket: Bucket, keys: Iterable[str], began: datetime) -> list[_Outcome]:
    with pool.connection() as connection:
        values = {"bucket": bucket.name, "key": list(keys), "began": began}
        return [_Outcome(*row) for row in connection.execute(named_queries("importing")["outcomes"], values)]
