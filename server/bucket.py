"""The bucket: write-once objects under keys like `2026-01-20/pi-05/data.jsonl`.

May be relied on:
- `put_new` returns only once the object is on the disk, whole; until then nobody sees any of it. Of two
  writers of one key exactly one succeeds, the other gets ObjectExists.
- A key that passes `check_key` names a place inside the bucket, and no other key is touched or listed.
- `version_of` changes whenever the content does.

Objects lie in the folder under their keys. What is being written lies in `~incoming`, a name that no key
can have; a crash may leave files there, which nobody reads.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import structlog

from server.errors import Misconfigured, ServerError
from server.files import sync_folder

KEY_BYTES_MAX = 1024
"""What an object store behind a bucket can hold."""

SEGMENT_BYTES_MAX = 255
"""What a file system can hold; the storage server fails on longer ones as well."""

_INCOMING = "~incoming"
_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$@=;:+,?-]+")

log = structlog.get_logger()


class InvalidKey(ServerError):
    """This text can't be an object's key."""


class ObjectExists(ServerError):
    """An object with this key is already there."""


class NoSuchObject(ServerError):
    """The bucket has no object with this key."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as listed. `bytes` is its stored size; `version` differs whenever its content does."""

    key: str
    version: str
    bytes: int


class Bucket(Protocol):
    """What loader and endpoint need of a bucket, whatever holds it."""

    name: str

    def put_new(self, key: str, body: bytes) -> None:
        """Store an object for good; raise ObjectExists or InvalidKey."""

    def get(self, key: str) -> bytes:
        """Return an object's bytes; raise NoSuchObject or InvalidKey."""

    def version_of(self, key: str) -> str | None:
        """Return an object's version, or None when there is no such object; raise InvalidKey."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in byte order; go on past odd names."""


def check_key(key: str) -> None:
    """Raise InvalidKey, saying why, unless every form of bucket could hold an object of this key."""
    if not _KEY.fullmatch(key):
        raise InvalidKey("a key has letters, digits and _/!.*'() &$@=;:+,?- only, and is not empty")
    if len(key) > KEY_BYTES_MAX:
        raise InvalidKey(f"a key has at most {KEY_BYTES_MAX} bytes")
    for segment in key.split("/"):
        if segment in ("", ".", ".."):
            raise InvalidKey("a key has no empty, '.' or '..' part")
        if len(segment) > SEGMENT_BYTES_MAX:
            raise InvalidKey(f"a part of a key has at most {SEGMENT_BYTES_MAX} bytes")


def open_bucket(url: str) -> Bucket:
    """Open the bucket at `url`; raise Misconfigured when it is of an unknown kind or not there."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise Misconfigured(f"a bucket's URL is file:///ABSOLUTE/FOLDER; {parts.scheme or 'this'!r} is not known")
    folder = Path(unquote(parts.path))
    if not folder.is_dir():
        raise Misconfigured(f"the bucket {folder} is not there: make the folder, or correct the URL")
    return FolderBucket(folder)


class FolderBucket:
    """A bucket in a folder, made if missing, on a file system with hard links."""

    def __init__(self, folder: Path, name: str = "scout-ingest") -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()

    def put_new(self, key: str, body: bytes) -> None:
        """Store an object for good; raise ObjectExists or InvalidKey, and OSError when the disk fails."""
        path = self._path(key)
        self._make_folder(path.parent)
        if not self._is_inside(path.parent):
            raise InvalidKey("a link stands where this key needs a folder")
        incoming = self.folder / _INCOMING
        incoming.mkdir(exist_ok=True)
        self._hand_over(incoming)
        descriptor, temporary = tempfile.mkstemp(dir=incoming)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(descriptor)
            self._hand_over(Path(temporary))
            # A link never replaces what is there, and of two writers one succeeds.
            os.link(temporary, path)
        except FileExistsError:
            if path.is_dir():
                raise InvalidKey("other objects lie below this key") from None
            raise ObjectExists from None
        finally:
            Path(temporary).unlink()
        sync_folder(path.parent)

    def get(self, key: str) -> bytes:
        """Return an object's bytes; raise NoSuchObject or InvalidKey, and OSError when the disk fails."""
        path = self._path(key)
        if self.version_of(key) is None:
            raise NoSuchObject
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise NoSuchObject from None

    def version_of(self, key: str) -> str | None:
        """Return an object's version, or None when there is no such object; raise InvalidKey."""
        path = self._path(key)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # A link, of the file or of a folder above it, could lead out of the bucket.
        if not stat.S_ISREG(status.st_mode) or not self._is_inside(path.parent):
            return None
        return _version(status)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in byte order; go on past odd names."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        if self._is_inside(self.folder / folder):
            yield from self._walk(folder, prefix)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            # A folder sorts as the longer keys below it do: `a-b` comes before `a/b`.
            entries = {
                entry.name + "/" * entry.is_dir(follow_symlinks=False): entry
                for entry in os.scandir(self.folder / folder)
            }
        except (FileNotFoundError, NotADirectoryError):
            return
        skipped = 0
        for name, entry in sorted(entries.items()):
            key = f"{folder}/{entry.name}" if folder else entry.name
            if not (key.startswith(prefix) or prefix.startswith(f"{key}/")) or key == _INCOMING:
                continue
            try:
                check_key(key)
                status = entry.stat(follow_symlinks=False)
            except InvalidKey:
                skipped += 1
                continue
            except FileNotFoundError:
                continue
            if name.endswith("/"):
                yield from self._walk(key, prefix)
            elif stat.S_ISREG(status.st_mode):
                yield ObjectInfo(key, _version(status), status.st_size)
            else:
                skipped += 1
        if skipped:
            log.warning("odd_names_skipped", bucket=self.name, folder=folder, count=skipped)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.folder / key

    def _is_inside(self, folder: Path) -> bool:
        """Whether no symbolic link on the way leads elsewhere, perhaps out of the bucket."""
        return folder.resolve() == folder

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        try:
            for new in reversed(missing):
                new.mkdir(exist_ok=True)
                self._hand_over(new)
                sync_folder(new.parent)
        except (FileExistsError, NotADirectoryError):
            raise InvalidKey("an object stands where this key needs a folder") from None

    def _hand_over(self, path: Path) -> None:
        """Let what root stores belong to the account that the bucket belongs to, or the server couldn't read it."""
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
