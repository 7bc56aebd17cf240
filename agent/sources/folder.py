r"""The folder source: takes the files that a till drops into a folder.

May be relied on
- A file is in the spool and then removed, or it is still there. A kill or a power cut between any two steps
  neither loses nor doubles a sale:

      folder/NAME ─rename▶ folder/processing/TOKEN-NAME ─append▶ noted in the spool ─▶ removed ─▶ note dropped
                                                    └─ what can't be taken ─▶ folder/rejected/TOKEN-NAME

  The rename is durable before the append, so that a file can't come back under its first name once its sales
  are stored. What the note says was taken is skipped at the next start; what was appended since is read.
- Names beginning with `.` or ending in `.tmp` or `.part` wait. Others are taken when a writer closes them or
  renames them into place, or when nothing changed for `settle_s`.
- What can't be taken goes to rejected/ with a `.reason.txt` beside it that names line and reason and never
  the content. It is written before the rest of the file counts as taken.
- Symbolic links and folders are left alone.

Notifications only shorten the wait: every step looks at the folder itself.
"""

import os
import random
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver

from agent.clock import Clock
from agent.errors import LocalFault, SpoolFull
from agent.files import sync_folder, write_safely
from agent.intake import FolderStore, TakenFile
from wire.framing import LINES_SUFFIXES, Piece, RefusedBody, split_body, split_lines
from wire.record import RefusedPayload, parse_payload

RESCAN_S = 60.0
"""A lost notification costs at most this much delay."""

RETRY_S = 30.0
"""A file that can't be read now is tried again so often."""

REASONS_LOGGED = 5
"""Of one file. All of them stand beside it in rejected/."""

GROUP_FILES = 200
GROUP_BYTES = 8 * 1024 * 1024
"""So many small files share one commit: a sync for each would wear the card and take minutes for thousands."""

_WAITING_SUFFIXES = (b".tmp", b".part")
_NAME_BYTES_KEPT = 180
_LINES_SUFFIXES = tuple(suffix.encode() for suffix in LINES_SUFFIXES)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Refused:
    line: int
    reason: str
    text: bytes


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one look at a file in processing/ gave."""

    name: bytes
    descriptor: int
    bytes_before: int
    bytes_now: int
    payloads: list[bytes]
    refused: list[_Refused]


class FolderSource:
    """Watches one folder. `step` does the work; `start` and `close` bracket the notifications."""

    def __init__(
        self,
        folder: Path,
        store: FolderStore,
        *,
        settle_s: float,
        file_bytes_max: int,
        wake: Callable[[], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._folder = os.fsencode(folder)
        self._processing = os.path.join(self._folder, b"processing")
        self._rejected = os.path.join(self._folder, b"rejected")
        self._store = store
        self._settle_s = settle_s
        self._file_bytes_max = file_bytes_max
        self._wake = wake
        self._clock = clock
        self._rng = rng
        self._observer: InotifyObserver | None = None
        self._complete: set[bytes] = set()
        self._complete_lock = threading.Lock()
        self._seen: dict[bytes, tuple[tuple[int, int, int], float]] = {}
        self._deferred: dict[bytes, float] = {}
        self._renames_synced = False  # an earlier run may have been killed between renaming and syncing

    def start(self) -> None:
        """Make the folders, drop notes of files that are gone, and listen. Raises LocalFault."""
        try:
            self._make_folders()
            present = set(os.listdir(self._processing))
            gone = [name for name in self._store.taken_files() if name not in present]
            if gone:
                self._store.release_files(gone)
            self._observer = InotifyObserver(generate_full_events=True)
            self._observer.schedule(
                _Notifications(self._notified),
                os.fsdecode(self._folder),
                event_filter=[FileClosedEvent, FileMovedEvent, FileCreatedEvent],
            )
            self._observer.start()
        except OSError as error:
            raise LocalFault(
                f"{os.fsdecode(self._folder)}: {error.strerror}. Check that the folder under [folder] path "
                "may be written by the agent."
            ) from error

    def close(self) -> None:
        """Stop listening."""
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def step(self) -> float:
        """Take what is ready; return in how many seconds to look again. Raises LocalFault."""
        try:
            self._make_folders()
            wait_s = self._take_new()
            names = self._pending()
            try:
                self._take_group(names)
            except SpoolFull:
                if len(names) == 1:
                    raise
                self._take_group(names[:1])  # less may still find room
        except OSError as error:
            raise LocalFault(f"{os.fsdecode(self._folder)}: {error.strerror or error}") from error
        return 0.0 if names else wait_s

    def _make_folders(self) -> None:
        """Make what is missing: whoever empties the till's folder must not stop intake."""
        for folder in (self._folder, self._processing, self._rejected):
            os.makedirs(folder, exist_ok=True)

    def _notified(self, name: bytes | None) -> None:
        if name is not None:
            with self._complete_lock:
                self._complete.add(name)
        self._wake()

    def _take_new(self) -> float:
        """Move what is ready into processing/; return how long until the next file may be."""
        with self._complete_lock:
            complete, self._complete = self._complete, set()
        now_s = self._clock.monotonic_s()
        wait_s, seen = RESCAN_S, {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(b".") or name.endswith(_WAITING_SUFFIXES):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                signature = (status.st_ino, status.st_size, status.st_mtime_ns)
                known, since_s = self._seen.get(name, (None, now_s))
                if known != signature:
                    since_s = now_s
                # An empty file says nothing yet: a till may touch it first and write later.
                if (name in complete and status.st_size) or now_s - since_s >= self._settle_s:
                    if not self._move(name):
                        seen[name] = (signature, now_s + RETRY_S)
                else:
                    seen[name] = (signature, since_s)
                    wait_s = min(wait_s, since_s + self._settle_s - now_s)
        self._seen = seen
        return wait_s

    def _move(self, name: bytes) -> bool:
        """Move a file into processing/; False when this file can't be moved now."""
        token = b"%016x-" % self._rng.getrandbits(64)
        target = os.path.join(self._processing, token + name[-_NAME_BYTES_KEPT:])
        self._renames_synced = False
        try:
            os.rename(os.path.join(self._folder, name), target)
        except FileNotFoundError:
            return True  # its owner took it back
        except PermissionError as error:
            log.warning("file_not_movable", file=_shown(name), error=error.strerror)
            return False
        return True

    def _sync_renames(self) -> None:
        if not self._renames_synced:
            sync_folder(self._processing)
            sync_folder(self._folder)
            self._renames_synced = True

    def _pending(self) -> list[bytes]:
        """Files in processing/ that may be read now, so many as share one commit."""
        now_s = self._clock.monotonic_s()
        with os.scandir(self._processing) as entries:
            found = [
                (status.st_mtime_ns, entry.name.partition(b"-")[2], entry.name, status.st_size)
                for entry in entries
                if self._deferred.get(entry.name, now_s) <= now_s
                for status in [entry.stat(follow_symlinks=False)]
                if stat.S_ISREG(status.st_mode)
            ]
        # In the order of writing: of two versions of one sale the later one must get the higher id.
        found.sort()
        group, group_bytes = [], 0
        for _, _, name, size in found:
            group.append(name)
            group_bytes += size
            if len(group) >= GROUP_FILES or group_bytes >= GROUP_BYTES:
                break
        return group

    def _take_group(self, names: list[bytes]) -> None:
        readings: list[_Reading] = []
        try:
            for name in names:
                reading = self._read(name)
                if reading:
                    readings.append(reading)
            if not readings:
                return
            for reading in readings:
                if reading.refused:
                    self._reject(reading)
            self._sync_renames()
            self._store.append(
                [payload for reading in readings for payload in reading.payloads],
                [TakenFile(reading.name, reading.bytes_now) for reading in readings],
            )
            self._remove(readings)
        finally:
            for reading in readings:
                os.close(reading.descriptor)
        for reading in readings:
            log.info(
                "file_taken",
                file=_shown(reading.name),
                rows=len(reading.payloads),
                refused=len(reading.refused),
            )

    def _read(self, name: bytes) -> _Reading | None:
        """Read what the spool doesn't have yet of one file; None when that must wait or never will be."""
        before = self._store.bytes_taken(name) or 0
        descriptor = None
        try:
            descriptor = os.open(os.path.join(self._processing, name), os.O_RDONLY | os.O_NOFOLLOW)
            size = os.fstat(descriptor).st_size
            is_too_large = size - before > self._file_bytes_max
            content = b"" if is_too_large else _read_all(descriptor, size)
        except OSError as error:
            # A bad sector or a missing right stops this file, not the others.
            self._deferred[name] = self._clock.monotonic_s() + RETRY_S
            log.warning("file_not_readable", file=_shown(name), error=error.strerror)
            if descriptor is not None:
                os.close(descriptor)
            return None
        if is_too_large:
            os.close(descriptor)
            self._reject_whole(name, before)
            return None
        self._deferred.pop(name, None)
        payloads, refused = _divide(name, content, before)
        return _Reading(name, descriptor, before, len(content), payloads, refused)

    def _reject(self, reading: _Reading) -> None:
        """Put what can't be taken into rejected/, durably, before the rest counts as taken."""
        path = os.path.join(self._rejected, _rejected_name(reading.name, reading.bytes_before))
        write_safely(path, b"\n".join(refused.text for refused in reading.refused))
        self._explain(reading.name, path, [(refused.line, refused.reason) for refused in reading.refused])

    def _reject_whole(self, name: bytes, before: int) -> None:
        """Move a file that is too large to read into rejected/. What the spool has of it stays there."""
        reason = f"larger than folder.file_bytes_max = {self._file_bytes_max}: split it and hand it in again"
        if before:
            reason += f" from byte {before} on, for what is before that was taken"
        path = os.path.join(self._rejected, _rejected_name(name, before))
        self._explain(name, path, [(1, reason)])
        os.rename(os.path.join(self._processing, name), path)
        sync_folder(self._rejected)
        sync_folder(self._processing)
        self._store.release_files([name])

    def _explain(self, name: bytes, path: bytes, refused: list[tuple[int, str]]) -> None:
        original = _shown(name.partition(b"-")[2])
        lines = [f"{original}, line {line}: {reason}" for line, reason in refused]
        write_safely(path + b".reason.txt", "".join(f"{line}\n" for line in lines).encode())
        for line in lines[:REASONS_LOGGED]:
            log.warning("line_rejected", where=line)

    def _remove(self, readings: list[_Reading]) -> None:
        """Remove taken files, unless something was appended meanwhile: that is read at the next step."""
        removed = []
        for reading in readings:
            if os.fstat(reading.descriptor).st_size == reading.bytes_now:
                os.unlink(os.path.join(self._processing, reading.name))
                removed.append(reading)
        if not removed:
            return
        sync_folder(self._processing)
        for reading in removed:
            self._read_after_removal(reading)
        self._store.release_files([reading.name for reading in removed])

    def _read_after_removal(self, reading: _Reading) -> None:
        """A writer that still holds the file may have written between our last look and its removal."""
        size = os.fstat(reading.descriptor).st_size
        if size == reading.bytes_now:
            return
        payloads, refused = _divide(reading.name, _read_all(reading.descriptor, size), reading.bytes_now)
        late = _Reading(reading.name, reading.descriptor, reading.bytes_now, size, payloads, refused)
        if refused:
            self._reject(late)
        self._store.append(payloads)


class _Notifications(FileSystemEventHandler):
    """Hands names over; the loop decides."""

    def __init__(self, notified: Callable[[bytes | None], None]) -> None:
        self._notified = notified

    def on_closed(self, event: FileSystemEvent) -> None:
        self._notified(os.path.basename(os.fsencode(event.src_path)))

    def on_moved(self, event: FileSystemEvent) -> None:
        if event.dest_path:
            self._notified(os.path.basename(os.fsencode(event.dest_path)))

    def on_created(self, event: FileSystemEvent) -> None:
        self._notified(None)


def _divide(name: bytes, content: bytes, before: int) -> tuple[list[bytes], list[_Refused]]:
    """Divide what follows the first `before` bytes into payloads and what can't be one."""
    fresh = content[before:]
    lines_before = content.count(b"\n", 0, before)
    payloads, refused = [], []
    try:
        pieces = (
            split_lines(fresh, lines_before + 1)
            if before or name.lower().endswith(_LINES_SUFFIXES)
            else split_body(fresh)
        )
        for piece in pieces:
            reason = _refusal(piece)
            if reason is None:
                payloads.append(piece.text)
            else:
                refused.append(_Refused(piece.line, reason, piece.text))
    except RefusedBody as error:
        return [], [_Refused(error.line, error.reason, fresh)]
    return payloads, refused


def _refusal(piece: Piece) -> str | None:
    try:
        parse_payload(piece.text)
    except RefusedPayload as refused:
        return str(refused)
    return None


def _read_all(descriptor: int, size: int) -> bytes:
    """Read a file from its beginning up to `size` bytes; less when it shrank meanwhile."""
    parts, position = [], 0
    while position < size:
        part = os.pread(descriptor, min(size - position, 1 << 20), position)
        if not part:
            break
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def _rejected_name(name: bytes, before: int) -> bytes:
    return name + (b".from-%d" % before if before else b"")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
