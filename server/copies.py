"""Copies of a bucket's objects in a folder, and the list that says what each of them is.

    FOLDER/DAY/DEVICE/FILE     the copies, under their names
    LIST                       a line each: name, bytes, sha256

May be relied on:
- A line is on the disk before its copy is there: no copy is without one.
- No copy is ever removed or replaced. Of an object that somebody replaced in the bucket under its name, which shows in
  its size, the first copy is kept.
- Memory doesn't grow with the number of objects, whatever their order in the bucket.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Self

import msgspec
import structlog

from server.bucket import Bucket, InvalidKey, NoSuchObject, ObjectInfo, ObjectTooLarge
from server.buckets.folder import FolderBucket
from server.files import hand_over, sync_folder
from server.reading import FOREIGN_BYTES_MAX

COPIED_AT_ONCE = 8
"""Across a network each copy waits more than it works."""
PAGE = 1000
PIECE_BYTES = 1024 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the backup. Of a list that grows: its first so many bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Objects:
    """What the bucket held when it was looked through, after the dump."""

    count: int
    bytes: int
    copied: int = 0  # by this backup
    replaced: int = 0  # by somebody under their names since they were copied: the first is kept
    left_out: int = 0  # larger than the loader takes, or of a name that no folder can have beside the others


def copy_objects(bucket: Bucket, folder: Path, list_path: Path, progress: Callable[[int], None]) -> Objects:
    """Copy the objects that are not in `folder` yet, and list them. Raises BucketFault, and OSError of the disk."""
    bucket.check()  # one that is away must not look empty
    folder.mkdir(exist_ok=True)
    hand_over(folder)
    copies = FolderBucket(folder)
    seen = 0
    tally: Counter[str] = Counter()
    with _ObjectList(list_path) as listed, ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        listing = bucket.list("")
        while page := list(islice(listing, PAGE)):
            for counts in pool.map(partial(_copy, bucket, copies, listed), page):
                tally.update(counts)
            seen += len(page)
            progress(seen)
    return Objects(**{"count": 0, "bytes": 0} | tally)


def _copy(bucket: Bucket, copies: FolderBucket, listed: "_ObjectList", item: ObjectInfo) -> dict[str, int]:
    path = copies.folder / item.key
    if path.is_file():
        has_bytes = path.stat().st_size
        return {"count": 1, "bytes": has_bytes, "replaced": int(has_bytes != item.bytes)}
    try:
        body = bucket.get(item.key, FOREIGN_BYTES_MAX)
        listed.note(item.key, body)
        copies.put_new(item.key, body)
    except NoSuchObject:
        return {}
    except (ObjectTooLarge, InvalidKey) as problem:
        log.warning("object_left_out", key=item.key, reason=str(problem))
        return {"left_out": 1}
    return {"count": 1, "bytes": len(body), "copied": 1}


class _ObjectList:
    """The list of objects, written from several threads. A line that was cut off is taken away when it is opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+")
        path.chmod(0o600)
        hand_over(path)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._file.truncate(_end_of_last_line(self._file))
        sync_folder(Path(self._file.name).parent)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, key: str, body: bytes) -> None:
        """Write a line; once this returns, it is on the disk."""
        line = msgspec.json.encode(StoredFile(key, len(body), hashlib.sha256(body).hexdigest()))
        with self._lock:
            self._file.write(line + b"\n")
            self._file.flush()
        os.fdatasync(self._file.fileno())


def listed_objects(path: Path) -> Iterator[StoredFile]:
    """Read the list, line by line; one that can't be read is named as such, and is no object's.

    A key may be listed again, where a copy was broken off.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield msgspec.json.decode(line, type=StoredFile)
            except msgspec.MsgspecError:
                yield StoredFile(f"line {number} of {path.name}", 0, "")


def stored_file(path: Path, bytes_max: int) -> StoredFile:
    """Look at the first so many bytes of a file."""
    digest, left = hashlib.sha256(), bytes_max
    with path.open("rb") as file:
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
    return StoredFile(path.name, bytes_max - left, digest.hexdigest())


def _end_of_last_line(file: IO[bytes]) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(end - PIECE_BYTES, 0)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
