"""`scout-agent export`: batches onto a USB stick, for a shop without internet.

May be relied on
- Under a final name lies a whole batch or nothing, whenever the stick is full or pulled out. Running it again
  goes on: what lies there already, byte for byte, is not written again.
- No state of any record changes. What is safely on the stick is noted as exported, so that its receipt is
  awaited and it isn't uploaded once more when the server has it from there.
- Runs beside the daemon or without it. One stick serves any number of devices: each adds to manifest and
  checksums.
- Names are lower case and free of anything that a FAT file system refuses.
"""

import errno
import fcntl
import gzip
import hashlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent import BUILT_ON
from agent.clock import Clock
from agent.config import Config
from agent.errors import LocalFault, SpoolDamaged
from agent.spool import Batch, SealLimits, Spool
from wire.manifest import CHECKSUMS, MANIFEST, ManifestEntry, NotAManifestLine, checksums_of, from_line, to_line

_NOT_OF_THIS_FILE_SYSTEM = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EBADF}
"""What FUSE and some FAT drivers answer to a lock, or to a sync of a folder, that they don't know."""

_ADVICE = {
    errno.ENOSPC: "The stick is full: free some space or take a larger one",
    errno.EDQUOT: "The quota is used up: free some space",
    errno.EFBIG: "The stick is full: free some space or take a larger one",
    errno.EROFS: "It can't be written: look for a switch on the stick, or format it anew",
    errno.EACCES: "The account that runs this command must be able to write there",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What one export did. `problems` say what is not on the stick, or not noted, and why."""

    directory: str
    batches: int
    rows: int
    bytes: int
    already_there: int  # of the batches
    same_storage: bool  # as the spool: perhaps no stick is mounted there
    problems: tuple[str, ...]


def export(
    config: Config,
    directory: Path,
    *,
    settled: bool,
    clock: Clock,
    rng: random.Random,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Exported:
    """Seal what is there and write every batch that isn't settled below `directory`, made if missing.

    `settled`: also those that are settled and still kept. `progress` hears of batches done and in all.
    Raises LocalFault when spool or stick can't be used; what was finished by then stays.
    """
    _refuse_own_folders(config, directory)
    if not config.spool_file.exists():
        raise LocalFault(
            f"{config.spool_file} does not exist: no sale was ever taken here, or the config names another place."
        )
    spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng)
    try:
        with _stick(directory):
            return _export(config, spool, directory, settled, progress)
    finally:
        spool.close()


def _export(
    config: Config, spool: Spool, directory: Path, settled: bool, progress: Callable[[int, int], None]
) -> Exported:
    problems = _seal_all(config, spool)
    batches = spool.kept(settled=settled)
    written: list[Batch] = []
    entries: list[ManifestEntry] = []
    new = 0
    for done, batch in enumerate(batches):
        progress(done, len(batches))
        try:
            jsonl = _body(spool, batch)
        except SpoolDamaged as fault:
            if spool.keeps(batch):  # else it was settled and forgotten meanwhile
                problems.append(str(fault))
            continue
        content = gzip.compress(jsonl, config.upload.gzip_level, mtime=0)
        new += _put(directory, batch.name.key, content)
        written.append(batch)
        file_sha256 = hashlib.sha256(content).hexdigest()
        entries.append(ManifestEntry.of(batch.name, batch.sha256, len(content), file_sha256))
    progress(len(batches), len(batches))
    _sync_folders(directory, {Path(entry.key).parent for entry in entries})
    _write_manifest(directory, entries)
    try:
        spool.note_exported(written)
    except LocalFault as fault:
        problems.append(f"the batches are on the stick, but that could not be noted, so they are sent too: {fault}")
    rows = sum(entry.rows for entry in entries)
    size = sum(entry.bytes for entry in entries)
    same_storage = directory.stat().st_dev == config.spool_file.stat().st_dev
    return Exported(str(directory), len(entries), rows, size, len(entries) - new, same_storage, tuple(problems))


def _body(spool: Spool, batch: Batch) -> bytes:
    """Read a batch. A page that the card no longer gives back is one batch's trouble, not the export's."""
    try:
        return spool.body(batch)
    except sqlite3.DatabaseError as error:
        raise SpoolDamaged(f"batch {batch.name.key} can't be read from the card: {error}") from error


def _seal_all(config: Config, spool: Spool) -> list[str]:
    """Seal whatever there is. On a card that is full the sealed ones go out all the same."""
    try:
        spool.seal(SealLimits(config.batch.rows_max, config.batch.bytes_max, age_max_s=0.0), BUILT_ON)
    except LocalFault as fault:
        return [f"{spool.state().unsealed_rows} sales could not be sealed and are not on the stick: {fault}"]
    return []


def _refuse_own_folders(config: Config, directory: Path) -> None:
    wanted = directory.resolve()
    for own in (Path(config.folder.path).resolve(), Path(config.spool.directory).resolve()):
        if own in (wanted, *wanted.parents):
            raise LocalFault(f"{directory} lies in {own}, which the agent itself uses. Name a folder on the stick.")


@contextmanager
def _stick(directory: Path) -> Iterator[None]:
    """Have the stick for ourselves; trouble with it surfaces as LocalFault."""
    try:
        directory.mkdir(exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with _tolerated():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)
    except BlockingIOError:
        raise LocalFault(f"{directory}: another export writes there now. Wait until it is done.") from None
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Was the stick pulled out? Is it mounted?")
        raise LocalFault(
            f"{error.filename or directory}: {error.strerror}. {advice}; then run the same command again. What was "
            "finished stays, and nothing half written bears a final name."
        ) from error


def _put(directory: Path, key: str, content: bytes) -> bool:
    """Write one object unless it is there already; True when it had to be written."""
    path = directory / key
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "a link stands where a folder should", str(folder))
    if not path.is_symlink() and path.is_file() and path.read_bytes() == content:
        return False
    _write(path, content)
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a file so that its name never shows half of it. Its folder is synced once, by the caller."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)  # left by an export that was cut off
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()  # makes room on a full stick
        raise


def _sync_folders(directory: Path, folders: set[Path]) -> None:
    """Make names durable, by way of the whole machine where the file system knows no other."""
    for folder in sorted({directory, *(directory / part for day in folders for part in (day.parent, day))}):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NOT_OF_THIS_FILE_SYSTEM:
                raise
            os.sync()
        finally:
            os.close(descriptor)


def _write_manifest(directory: Path, entries: Sequence[ManifestEntry]) -> None:
    """Add these to what the manifest says already of files that are there, and write the checksums anew."""
    known = {entry.key: entry for entry in (*_known_entries(directory), *entries)}
    manifest = b"".join(to_line(known[key]) for key in sorted(known))
    files = [(key, known[key].file_sha256) for key in sorted(known)]
    _write(directory / MANIFEST, manifest)
    _write(directory / CHECKSUMS, checksums_of([(MANIFEST, hashlib.sha256(manifest).hexdigest()), *files]))
    _sync_folders(directory, set())


def _known_entries(directory: Path) -> Iterator[ManifestEntry]:
    """What an earlier export, perhaps another device's, noted. A damaged line vouches for nothing."""
    path = directory / MANIFEST
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(NotAManifestLine):
            entry = from_line(line)
            if (directory / entry.key).is_file():
                yield entry


@contextmanager
def _tolerated() -> Iterator[None]:
    """Let pass that a file system doesn't know what it was asked."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_OF_THIS_FILE_SYSTEM:
            raise
