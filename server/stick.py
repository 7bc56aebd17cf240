"""What lies on a stick: the files that are objects, and what manifest and checksums say of them.

Knows neither database nor bucket. May be relied on:
- A file is an object by where it lies, DAY/DEVICE/FILE, wherever on the stick that is; unfinished ones are left
  alone.
- A damaged line of a manifest vouches for nothing and condemns nothing: a batch's own name proves its content.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from server.bucket import InvalidKey, check_key
from server.expanding import Unreadable
from server.reading import Delivery, device_of, read_object
from server.tree import File, Problem, Refused
from wire.manifest import CHECKSUMS, MANIFEST, ManifestEntry, NotAManifestLine, from_line

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CHECKSUM = re.compile(rb"([0-9a-f]{64}) [ *]([\x21-\x7e]+)")
_UNFINISHED = ".part"


@dataclass(frozen=True, slots=True)
class Found:
    """A good object: as stored, and as read. `captured_at` for lines that don't say when they were taken."""

    key: str
    content: bytes
    delivery: Delivery
    captured_at: str | None = None


@dataclass(slots=True)
class Stick:
    """What lies on it. `entries` and `checksums` say what should, by the path it should have."""

    files: list[File] = field(default_factory=list)
    entries: dict[Path, ManifestEntry] = field(default_factory=dict)
    checksums: dict[Path, str] = field(default_factory=dict)
    devices: dict[str, set[str]] = field(default_factory=dict)  # that a manifest names, by name of the file
    problems: list[Problem] = field(default_factory=list)


def look_through(files: Iterable[File]) -> Stick:
    """Find the objects among these files, and what is missing."""
    stick = Stick()
    for file in files:
        if file.path.name == MANIFEST:
            _note_manifest(stick, file)
        elif file.path.name == CHECKSUMS:
            _note_checksums(stick, file)
        elif has_an_objects_place(file.path):
            stick.files.append(file)
    for path in sorted({*stick.entries, *stick.checksums} - {file.path for file in stick.files}):
        stick.problems.append(Problem("missing", str(path), "it is listed, and is not there"))
    return stick


def has_an_objects_place(path: Path) -> bool:
    """Whether a file lies where an export writes objects."""
    is_there = len(path.parts) > 3 and _DAY.fullmatch(path.parts[-3]) is not None
    return is_there and not path.name.endswith(_UNFINISHED)


def key_of(path: Path) -> str:
    """The object key that a file's place gives it; raise Refused when it is none."""
    key = "/".join(path.parts[-3:])
    try:
        check_key(key)
        device_of(key)
    except (InvalidKey, Unreadable) as problem:
        raise Refused(str(problem)) from None
    return key


def read(stick: Stick, file: File) -> Found:
    """Read and check one object. Raises Refused or Unreadable, saying why, and OSError."""
    key = key_of(file.path)
    content = file.content()
    delivery = read_object(key, content, bucket="", version="")
    entry = stick.entries.get(file.path)
    if entry and entry.sha256 != delivery.sha256:
        raise Unreadable("its content is not what the manifest says")
    checksum = stick.checksums.get(file.path)
    if checksum and not delivery.name and checksum != hashlib.sha256(content).hexdigest():
        raise Unreadable(f"its bytes are not what {CHECKSUMS} says")
    return Found(key, content, delivery)


def _note_manifest(stick: Stick, file: File) -> None:
    damaged = 0
    for line in _lines(stick, file):
        try:
            entry = from_line(line)
        except NotAManifestLine:
            damaged += 1
        else:
            stick.entries[file.path.parent / entry.key] = entry
            stick.devices.setdefault(Path(entry.key).name, set()).add(entry.device)
    if damaged:
        reason = f"{damaged} of its lines can't be used; the objects were judged by their names"
        stick.problems.append(Problem("damaged", str(file.path), reason))


def _note_checksums(stick: Stick, file: File) -> None:
    for line in _lines(stick, file):
        found = _CHECKSUM.fullmatch(line)
        name = found[2].decode() if found else ""
        if found and _DAY.fullmatch(name.partition("/")[0]) and ".." not in name.split("/"):
            stick.checksums[file.path.parent / name] = found[1].decode()


def _lines(stick: Stick, file: File) -> Iterator[bytes]:
    try:
        yield from file.content().splitlines()
    except (OSError, Refused, Unreadable) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        stick.problems.append(Problem("damaged", str(file.path), f"it can't be read: {reason}"))
