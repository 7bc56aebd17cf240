"""A bucket in a folder: `file:///ABSOLUTE/FOLDER`, on a file system with hard links.

May be relied on, beyond what every bucket promises (server/bucket.py): `put_new` returns only once the object
is on the disk, and of two writers of one key exactly one succeeds; a listing is in byte order; no symbolic
link leads out of the folder.

Objects lie in the folder under their keys. What is being written lies in `~incoming`, a name that no key
can have; a crash may leave files there, which nobody reads.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote

import structlog

from server.bucket import (
    PIECE_BYTES,
    Bucket,
    BucketRefused,
    BucketUnavailable,
    InvalidKey,
    NoSuchObject,
    ObjectExists,
    ObjectInfo,
    check_key,
)
from server.errors import Misconfigured
from server.files import sync_folder

NAME = "scout-ingest"

_INCOMING = "~incoming"

log = structlog.get_logger()


def opened(parts: SplitResult, _: Mapping[str, str]) -> AbstractContextManager["FolderBucket"]:
    """Open the folder that a URL names; raise Misconfigured when it names none, or one that is not there."""
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query:
        raise Misconfigured("the URL of a bucket in a folder is file:///ABSOLUTE/FOLDER.")
    folder = Path(unquote(parts.path))
    if not folder.is_dir():
        raise Misconfigured(f"the bucket {folder} is not there: make the folder, or correct the URL.")
    return nullcontext(FolderBucket(folder))


class FolderBucket(Bucket):
    """The folder, made if missing."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()

    def check(self) -> None:
        """Raise BucketRefused when the folder is not there: of a disk that is not mounted nothing is missing."""
        if not self.folder.is_dir():
            raise BucketRefused(f"the bucket {self.folder} is not there: mount its disk, or make the folder.")

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

    @contextmanager
    def open(self, key: str) -> Iterator[Iterator[bytes]]:
        """Give an object's bytes piece by piece; raise NoSuchObject or InvalidKey, and OSError of the disk."""
        path = self._path(key)
        if self.version_of(key) is None:
            raise NoSuchObject
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NoSuchObject from None
        with file:
            yield _pieces(file)

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


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Read to the end that the file had when it was opened: somebody else may be at it."""
    left = os.fstat(file.fileno()).st_size
    while left:
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            raise BucketUnavailable("the object became shorter while it was read: it is read again later.")
        left -= len(piece)
        yield piece


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
