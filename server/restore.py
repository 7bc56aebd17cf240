"""A backup brought back: into a new data directory, or into a given database and bucket.

    the dump's hash ─▶ objects that are as they were noted ─▶ the database, whole ─▶ every device asks again

May be relied on:
- Nothing is restored over anything: a directory must be new or empty, a database without anything of ours. A bucket may
  hold objects; what it lacks is added.
- What the dump holds was counted when it was made, and is counted again.
- A damaged or missing object is named, and the others are restored: the dump has the rows of those that were loaded.
- Broken off, it is repeated: a directory is begun anew, a database is as it was before.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path

import psycopg
import structlog

from server import dump, fleet, operator, secrets
from server.backup import BackupFolder, Manifest
from server.bucket import Bucket, ObjectExists
from server.buckets.folder import FolderBucket
from server.config import bucket_folder
from server.copies import COPIED_AT_ONCE, PAGE, StoredFile, listed_objects
from server.data_directory import RESTORING, DataDirectory
from server.embedded import EmbeddedPostgres
from server.errors import Misconfigured
from server.files import hand_over, write_safely
from server.schema import refuse_newer

_OURS_ALONE = {"lock", RESTORING}

log = structlog.get_logger()


@dataclass(slots=True)
class Restored:
    """What was brought back, and what could not be."""

    backup: str
    rows: dict[str, int]
    objects: int = 0
    there: int = 0  # of them, in the bucket already
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)  # that were made, and with which nobody can log in yet
    has_secret: bool = False
    devices: int = 0  # that will ask again


@dataclass(frozen=True, slots=True)
class Chosen:
    """A backup that may be restored by this version: its dump is as it was written."""

    folder: BackupFolder
    manifest: Manifest

    @property
    def dump(self) -> Path:
        """Where its dump lies."""
        return self.folder.path / self.manifest.dump.name


def choose(folder: BackupFolder, name: str | None) -> Chosen:
    """Choose a backup, the newest unless one is named; raise Misconfigured where it can't be restored, saying why."""
    names = folder.names()
    if not names:
        raise Misconfigured(f"no backup in {folder.path} is complete: those that were broken off don't count.")
    if name and name not in names:
        raise Misconfigured(f"there is no backup {name} in {folder.path}. There are: {', '.join(names)}.")
    manifest = folder.manifest(name or names[0])
    refuse_newer(manifest.moment.migrations)
    others = ", ".join(other for other in names if other != manifest.name) or "none"
    if not folder.has_dump(manifest):
        raise Misconfigured(
            f"{manifest.dump.name} is not what was written: the disk may be failing. Nothing was changed. Others, for "
            f"--at: {others}."
        )
    if not folder.has_list(manifest):
        log.warning("list_of_objects_changed", path=str(folder.list))
    return Chosen(folder, manifest)


def check(chosen: Chosen, progress: Callable[[int], None] = lambda _: None) -> Restored:
    """Look at all of a backup, and change nothing."""
    restored = _begin(chosen)
    _take_objects(chosen, None, restored, progress)
    return restored


def restore_directory(
    chosen: Chosen,
    data: Path,
    *,
    elsewhere: Bucket | None,
    environment: Mapping[str, str],
    now: datetime,
    progress: Callable[[int], None],
) -> Restored:
    """Make a data directory for `up` of it; the objects go into it, unless they are to lie elsewhere.

    Raises Misconfigured when it holds anything but a restore broken off.
    """
    is_broken_off = (data / RESTORING).exists()
    if data.exists() and not is_broken_off and (found := {path.name for path in data.iterdir()} - _OURS_ALONE):
        raise Misconfigured(
            f"{data} holds {min(found)} and more, and nothing is ever restored over it: move it away, or name "
            "another directory."
        )
    with DataDirectory(data, is_restoring=True) as directory:
        write_safely(directory.path / RESTORING, b"", 0o600)
        for path in directory.path.iterdir():
            if path.name not in _OURS_ALONE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        bucket = elsewhere or _own_bucket(directory.path)
        with EmbeddedPostgres(directory, environment=environment) as postgres:
            restored = restore_pieces(chosen, postgres.dsn, bucket, environment=environment, now=now, progress=progress)
        for name in chosen.manifest.secrets:
            secrets.copy_secret(chosen.folder.secrets / name, directory.path)
            restored.has_secret = True
        (directory.path / RESTORING).unlink()
    return restored


def restore_pieces(
    chosen: Chosen,
    url: str,
    bucket: Bucket,
    *,
    environment: Mapping[str, str],
    now: datetime,
    progress: Callable[[int], None],
) -> Restored:
    """Fill a given database and bucket. Raises Misconfigured, DumpFailed and BucketFault."""
    with psycopg.connect(url, autocommit=True) as connection:
        dump.refuse_filled(connection)
    bucket.check()
    restored = _begin(chosen)
    _take_objects(chosen, bucket, restored, progress)
    restored.roles = dump.restore(url, chosen.dump, chosen.manifest.moment, environment)
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        restored.devices, _ = operator.devices_heard(connection)
        operator.begin_generation(connection)
        fleet.after_restore(connection, now)
    return restored


def _own_bucket(data: Path) -> Bucket:
    folder = bucket_folder(data)
    folder.mkdir(mode=0o700)
    hand_over(folder)
    return FolderBucket(folder)


def _begin(chosen: Chosen) -> Restored:
    return Restored(chosen.manifest.name, chosen.manifest.moment.rows)


def _take_objects(chosen: Chosen, bucket: Bucket | None, restored: Restored, progress: Callable[[int], None]) -> None:
    """Look at every object that is listed; those that are as they were noted go to the bucket, if there is one."""
    listed = listed_objects(chosen.folder.list)
    with ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        while page := list(islice(listed, PAGE)):
            _note(zip(page, pool.map(partial(_take, chosen.folder.bucket, bucket), page), strict=True), restored)
            progress(restored.objects)
    # A copy that was broken off is listed twice.
    restored.damaged, restored.missing = (sorted(set(keys)) for keys in (restored.damaged, restored.missing))


def _note(taken: Iterable[tuple[StoredFile, str]], restored: Restored) -> None:
    for item, became in taken:
        if became in ("damaged", "missing"):
            getattr(restored, became).append(item.name)
        else:
            restored.objects += 1
            restored.there += became == "there"


def _take(copies: Path, bucket: Bucket | None, item: StoredFile) -> str:
    path = copies / item.name
    if not path.is_file():
        return "missing"
    body = path.read_bytes()
    if (len(body), hashlib.sha256(body).hexdigest()) != (item.bytes, item.sha256):
        return "damaged"
    if bucket:
        try:
            bucket.put_new(item.name, body)
        except ObjectExists:
            return "there"
    return "taken"
