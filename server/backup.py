"""A backup of database and bucket in a folder of its own, made while the server runs.

    FOLDER/scout-backup               whose folder this is, and the lock
    FOLDER/TIME.dump                  the database at one moment, by pg_dump
    FOLDER/bucket/DAY/DEVICE/FILE     the objects, under their names; only missing ones are copied
    FOLDER/objects.jsonl              key, bytes and sha256 of each: noted before the object is there
    FOLDER/secrets/jwt-secret         what signs the devices' tokens (0600), and the one before it
    FOLDER/TIME.json                  what belongs together, with counts and hashes; written last

May be relied on:
- What has a manifest is complete, and on the disk. What was broken off has none, harms no other, and is removed by the
  next backup. A full disk costs the backup that met it.
- Dump first, then objects: every object that the dump knows of is in the copy. Those that came later are no harm: a
  restored server loads them.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Self

import msgspec
import psycopg
import structlog

from server import secrets
from server.bucket import Bucket
from server.copies import PIECE_BYTES, Objects, StoredFile, copy_objects, stored_file
from server.dump import Moment, a_moment, dumped, note_backup
from server.errors import Misconfigured, ServerError
from server.files import hand_over, sync_folder, write_safely

FORMAT = 1
_MARKER = "scout-backup"
_MARKED = b"Backups of scout-server. docs: scout-server backup --help, scout-server restore --help\n"
_LOST_AND_FOUND = "lost+found"

log = structlog.get_logger()


class BackupHeld(ServerError):
    """Another backup or restore works in this folder."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One complete backup."""

    format: int
    made_at: datetime
    program: str  # the version of scout-server
    moment: Moment
    dump: StoredFile
    objects: Objects | None  # None: the database alone
    listed: StoredFile | None
    secrets: tuple[str, ...]

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.dump.name.removesuffix(".dump")


class BackupFolder:
    """A backup's folder, held: by one who writes, or by any who read.

    Raises Misconfigured where it is not one, and BackupHeld.
    """

    def __init__(self, path: Path, *, writing: bool) -> None:
        self.path = path.resolve()
        self.list = self.path / "objects.jsonl"
        self.bucket = self.path / "bucket"
        self.secrets = self.path / "secrets"
        try:
            self._lock = _hold(self.path, writing)
        except OSError as error:
            raise Misconfigured(f"{self.path} can't be used for a backup: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def names(self) -> list[str]:
        """The complete backups, the newest first."""
        return sorted((path.stem for path in self.path.glob("2*.json")), reverse=True)

    def manifest(self, name: str) -> Manifest:
        """Read one; raise Misconfigured, naming the others, when it can't be read."""
        try:
            read = msgspec.json.decode((self.path / f"{name}.json").read_bytes(), type=Manifest)
            if (read.format, read.name) == (FORMAT, name):
                return read
            reason = f"it is of format {read.format}" if read.format != FORMAT else "it is another one's"
        except (OSError, msgspec.MsgspecError) as error:
            reason = type(error).__name__
        others = ", ".join(other for other in self.names() if other != name) or "none"
        raise Misconfigured(f"the manifest {name}.json can't be used ({reason}). Others in {self.path}: {others}.")

    def has_dump(self, manifest: Manifest) -> bool:
        """Whether the dump is there as it was written."""
        path = self.path / manifest.dump.name
        return path.is_file() and stored_file(path, path.stat().st_size) == manifest.dump

    def has_list(self, manifest: Manifest) -> bool:
        """Whether the list of objects is there as it was then: it may have grown since."""
        listed = manifest.listed
        return listed is None or (self.list.is_file() and stored_file(self.list, listed.bytes) == listed)

    def forget(self, name: str) -> None:
        """Remove a backup, its manifest first: broken off, the rest is a leftover. Objects stay."""
        (self.path / f"{name}.json").unlink()
        sync_folder(self.path)
        (self.path / f"{name}.dump").unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what backups that were broken off left of their dumps."""
        complete = {f"{name}.dump" for name in self.names()}
        for path in (*self.path.glob("2*.dump"), *self.path.glob("2*.dump.partial")):
            if path.name not in complete:
                path.unlink()
                log.info("leftover_removed", path=str(path))


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up. `bucket` None: the database alone. `data`: the directory of `up`, which is ours as a whole."""

    url: str
    bucket: Bucket | None
    data: Path | None
    environment: Mapping[str, str]


def back_up(
    source: Source,
    folder: BackupFolder,
    *,
    program: str,
    now: datetime,
    keep: int | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> Manifest:
    """Make a backup; of the complete ones the newest `keep` are kept, this one included.

    `progress` hears what is being done, and how far it is. Raises what the database, the bucket and the disk raise:
    then there is no new backup, and those before are as they were.
    """
    folder.remove_leftovers()
    name = f"{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}Z"
    if name in folder.names():
        raise BackupHeld(f"there is a backup {name} already: is the clock right?")
    kept_secrets = _keep_secrets(source, folder)
    moment, dump = _dump(source, folder.path / f"{name}.dump", partial(progress, "bytes dumped"))
    objects = None
    if source.bucket:
        objects = copy_objects(source.bucket, folder.bucket, folder.list, partial(progress, "objects looked at"))
    listed = stored_file(folder.list, folder.list.stat().st_size) if objects else None
    moment = replace(moment, snapshot="")
    manifest = Manifest(FORMAT, now, program, moment, dump, objects, listed, kept_secrets)
    write_safely(folder.path / f"{name}.json", msgspec.json.format(msgspec.json.encode(manifest)), 0o600)
    _tell(source.url)
    # Not this one, though a clock that went back makes it look old.
    others = [other for other in folder.names() if other != name]
    for old in others[keep - 1 :] if keep else []:
        folder.forget(old)
    return manifest


def _tell(url: str) -> None:
    """Let the database know, where we may write to it: it is its metrics that miss a backup."""
    try:
        note_backup(url)
    except psycopg.Error as error:
        log.warning("backup_not_noted", sqlstate=error.sqlstate, consequence="alerts will call it missing")


def _hold(path: Path, writing: bool) -> int:
    marker = path / _MARKER
    if not path.is_dir():
        raise Misconfigured(
            f"there is no folder {path}: make it, or mount its disk. It is not made by itself, so that no backup goes "
            "where a disk should be."
        )
    if writing and not {inside.name for inside in path.iterdir()} - {_LOST_AND_FOUND}:
        write_safely(marker, _MARKED, 0o600)
    if not marker.exists():
        raise Misconfigured(f"{path} is no backup of scout-server: give an empty folder, or one that holds a backup.")
    lock = os.open(marker, os.O_RDWR if writing else os.O_RDONLY)
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BackupHeld(f"another backup or restore works in {path}: wait until it has ended.") from None
    return lock


def _keep_secrets(source: Source, folder: BackupFolder) -> tuple[str, ...]:
    """Keep what signs the devices' tokens: without it every device would have to be let in anew."""
    kept = []
    secret = secrets.find_jwt_secret(source.data, source.environment)
    if secret:
        secrets.write(folder.secrets / "jwt-secret", secret)
        kept.append("jwt-secret")
    previous = source.data and secrets.previous_secret_file(source.data)
    if previous and previous.exists():
        secrets.copy_secret(previous, folder.path)
        kept.append(previous.name)
    return tuple(kept)


def _dump(source: Source, path: Path, progress: Callable[[int], None]) -> tuple[Moment, StoredFile]:
    """Write the dump under its name once it is complete, and on the disk."""
    partial_path = path.with_name(f"{path.name}.partial")
    everything = source.data is not None
    try:
        with (
            a_moment(source.url, source.environment) as moment,
            dumped(source.url, moment, everything=everything, environment=source.environment) as pieces,
        ):
            written = _write(partial_path, pieces, progress)
    except BaseException:
        partial_path.unlink(missing_ok=True)
        raise
    partial_path.rename(path)
    sync_folder(path.parent)
    return moment, replace(written, name=path.name)


def _write(path: Path, pieces: IO[bytes], progress: Callable[[int], None]) -> StoredFile:
    written, digest = 0, hashlib.sha256()
    with path.open("xb") as file:
        path.chmod(0o600)
        hand_over(path)
        while piece := pieces.read(PIECE_BYTES):
            written += file.write(piece)
            digest.update(piece)
            progress(written)
        file.flush()
        os.fsync(file.fileno())
    return StoredFile(path.name, written, digest.hexdigest())
