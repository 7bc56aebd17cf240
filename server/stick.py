"""What lies on a stick: the files that are objects, and what manifest and checksums say of them.

Knows neither database nor bucket. May be relied on:
- A file is an object by where it lies, DAY/DEVICE/FILE, wherever on the stick that is; other files, hidden ones
  and unfinished ones are left alone.
- No link is followed, below the paths that were named.
- A damaged line of a manifest vouches for nothing and condemns nothing: a batch's own name proves its content.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.bucket import InvalidKey, check_key
from server.errors import ServerError
from server.expanding import Unreadable
from server.reading import FOREIGN_BYTES_MAX, Delivery, device_of, read_object
from wire.manifest import CHECKSUMS, MANIFEST, ManifestEntry, NotAManifestLine, from_line

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CHECKSUM = re.compile(rb"([0-9a-f]{64}) [ *]([\x21-\x7e]+)")
_UNFINISHED = ".part"


class Refused(ServerError):
    """This file may not be taken, whatever it holds."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not taken: `kind` is missing, damaged or refused."""

    kind: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A good object: as stored, and as read."""

    key: str
    content: bytes
    delivery: Delivery


@dataclass(slots=True)
class Stick:
    """What lies below the named paths. `entries` and `checksums` say what should, by the path it should have."""

    files: list[Path] = field(default_factory=list)
    entries: dict[Path, ManifestEntry] = field(default_factory=dict)
    checksums: dict[Path, str] = field(default_factory=dict)
    devices: dict[str, set[str]] = field(default_factory=dict)  # that a manifest names, by name of the file
    problems: list[Problem] = field(default_factory=list)


def look_through(paths: Sequence[Path]) -> Stick:
    """Find the objects in files and folders, and what is missing. Raises ServerError when a path is not there."""
    stick = Stick()
    for path in paths:
        try:
            whole = path.resolve(strict=True)
        except OSError as error:
            raise ServerError(f"{path}: {error.strerror}. Is the stick mounted?") from None
        if whole.is_dir():
            _look_into(stick, whole)
        else:
            stick.files.append(whole)
    stick.files = sorted(set(stick.files))
    for path in sorted({*stick.entries, *stick.checksums} - set(stick.files)):
        stick.problems.append(Problem("missing", str(path), "it is listed, and is not there"))
    return stick


def key_of(path: Path) -> str:
    """The object key that a file's place gives it; raise Refused when it is none."""
    key = "/".join(path.parts[-3:])
    try:
        check_key(key)
        device_of(key)
    except (InvalidKey, Unreadable) as problem:
        raise Refused(str(problem)) from None
    return key


def read(stick: Stick, path: Path) -> Found:
    """Read and check one object. Raises Refused or Unreadable, saying why, and OSError."""
    key = key_of(path)
    content = _content(path)
    delivery = read_object(key, content, bucket="", version="")
    entry = stick.entries.get(path)
    if entry and entry.sha256 != delivery.sha256:
        raise Unreadable("its content is not what the manifest says")
    checksum = stick.checksums.get(path)
    if checksum and not delivery.name and checksum != hashlib.sha256(content).hexdigest():
        raise Unreadable(f"its bytes are not what {CHECKSUMS} says")
    return Found(key, content, delivery)


def _look_into(stick: Stick, root: Path) -> None:
    def unreadable(error: OSError) -> None:
        stick.problems.append(Problem("damaged", str(error.filename), f"it can't be read: {error.strerror}"))

    for place, folders, files in os.walk(root, onerror=unreadable):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        _note_lists(stick, folder)
        for name in (*folders, *files):
            path = folder / name
            if path.is_symlink():
                stick.problems.append(Problem("refused", str(path), "it is a link, and none is followed"))
            elif name in files and _has_an_objects_place(path):
                stick.files.append(path)


def _has_an_objects_place(path: Path) -> bool:
    is_there = len(path.parts) > 3 and _DAY.fullmatch(path.parts[-3]) is not None
    return is_there and not path.name.startswith(".") and not path.name.endswith(_UNFINISHED)


def _note_lists(stick: Stick, folder: Path) -> None:
    """Take in manifest and checksums, where the folder has them."""
    damaged = 0
    for line in _lines(stick, folder / MANIFEST):
        try:
            entry = from_line(line)
        except NotAManifestLine:
            damaged += 1
        else:
            stick.entries[folder / entry.key] = entry
            stick.devices.setdefault(Path(entry.key).name, set()).add(entry.device)
    if damaged:
        reason = f"{damaged} of its lines can't be used; the objects were judged by their names"
        stick.problems.append(Problem("damaged", str(folder / MANIFEST), reason))
    for line in _lines(stick, folder / CHECKSUMS):
        found = _CHECKSUM.fullmatch(line)
        name = found[2].decode() if found else ""
        if found and _DAY.fullmatch(name.partition("/")[0]) and ".." not in name.split("/"):
            stick.checksums[folder / name] = found[1].decode()


def _lines(stick: Stick, path: Path) -> Iterator[bytes]:
    try:
        yield from _content(path).splitlines()
    except FileNotFoundError:
        return
    except (OSError, Refused, Unreadable) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        stick.problems.append(Problem("damaged", str(path), f"it can't be read: {reason}"))


def _content(path: Path) -> bytes:
    """Read a file that is one: no link, no pipe, no device, and not larger than an object may be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("it is a link, and none is followed") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("it is no plain file")
        if status.st_size > FOREIGN_BYTES_MAX:
            raise Unreadable(f"it is larger than {FOREIGN_BYTES_MAX} bytes")
        return file.read()
