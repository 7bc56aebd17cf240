"""The files below the paths that an operator names; a zip is looked into as if it were a folder.

May be relied on:
- No link is followed below the named paths, no pipe or device is opened, and nothing is ever unpacked to disk.
- What can't be looked into becomes a Problem; the rest is found all the same.
- Hidden files and folders are left alone: systems leave theirs on sticks and in archives.
- A file's content is read when asked for, and never more of it than an object may hold.
"""

import errno
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.errors import ServerError
from server.expanding import Unreadable
from server.reading import FOREIGN_BYTES_MAX

_ENCRYPTED = 0x1
_TOO_LARGE = f"it is larger than {FOREIGN_BYTES_MAX} bytes"
_A_LINK = "it is a link, and none is followed"


class Refused(ServerError):
    """This file may not be taken, whatever it holds."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not taken: `kind` is missing, damaged or refused."""

    kind: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class File:
    """A file, by its place below the `root` that was named; one in a zip lies below the zip."""

    path: Path
    root: Path
    modified_at: datetime
    content: Callable[[], bytes]
    """Reads it. Raises Refused, Unreadable (both say why) and OSError."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What was found, in the order of the paths, and what could not be looked at."""

    files: tuple[File, ...]
    problems: tuple[Problem, ...]


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[Tree]:
    """Find the files in these files, folders and zips, each once. Raises ServerError when a path is not there."""
    files: dict[Path, File] = {}
    problems: list[Problem] = []
    with ExitStack() as archives:
        for path in paths:
            try:
                whole = path.resolve(strict=True)
            except OSError as error:
                raise ServerError(f"{path}: {error.strerror}. Is the stick mounted?") from None
            root = whole if whole.is_dir() else whole.parent
            for place in _in_folder(whole, problems) if whole.is_dir() else [whole]:
                found = _in_zip(place, root, archives, problems) if _is_zip(place) else _plain(place, root, problems)
                for file in found:
                    files.setdefault(file.path, file)
        yield Tree(tuple(files[path] for path in sorted(files)), tuple(problems))


def _in_folder(root: Path, problems: list[Problem]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(_unreadable(Path(str(error.filename)), error))

    for place, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink():
                problems.append(Problem("refused", str(path), _A_LINK))
            elif name in names and not name.startswith("."):
                yield path


def _plain(path: Path, root: Path, problems: list[Problem]) -> Iterator[File]:
    try:
        modified_at = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except OSError as error:
        problems.append(_unreadable(path, error))
    else:
        yield File(path, root, modified_at, lambda: _content(path))


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(_A_LINK) from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("it is no plain file")
        if status.st_size > FOREIGN_BYTES_MAX:
            raise Unreadable(_TOO_LARGE)
        return file.read()


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def _in_zip(path: Path, root: Path, archives: ExitStack, problems: list[Problem]) -> Iterator[File]:
    try:
        archive = archives.enter_context(zipfile.ZipFile(path))
    except zipfile.BadZipFile:
        problems.append(Problem("damaged", str(path), "it is no zip, or is cut off"))
        return
    except OSError as error:
        problems.append(_unreadable(path, error))
        return
    for member in archive.infolist():
        # Written elsewhere, it may have the other slash; and whatever it says, it lies within the zip.
        parts = [part for part in member.filename.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if member.is_dir() or not parts or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        yield File(path.joinpath(*parts), root, _packed_at(member), _reader(archive, member))


def _reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise Refused(_A_LINK)
        if member.flag_bits & _ENCRYPTED:
            raise Refused("it is encrypted: unpack the zip first")
        try:
            with archive.open(member) as file:
                content = file.read(FOREIGN_BYTES_MAX + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise Unreadable("it is damaged within the zip") from None
        except NotImplementedError:
            raise Refused("it is packed in a way that is not known here: unpack the zip first") from None
        if len(content) > FOREIGN_BYTES_MAX:
            raise Unreadable(_TOO_LARGE)
        return content

    return read


def _packed_at(member: zipfile.ZipInfo) -> datetime:
    """When the file was changed last, by the clock of whoever packed it: a zip knows no time zone."""
    try:
        return datetime(*member.date_time, tzinfo=UTC)
    except ValueError:
        return datetime(1980, 1, 1, tzinfo=UTC)  # what zips say that were given no time


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem("damaged", str(path), f"it can't be read: {error.strerror}")
