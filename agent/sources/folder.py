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

import errno
import os
import random
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent

from agent.clock import Clock
from agent.errors import LocalFault, SpoolFull
from agent.files import sync_folder
from agent.intake import FolderStore, TakenFile, Tally, no_tally
from agent.sources.rejected import Refused, explain, judge, set_beside, shown
from agent.sources.watch import FolderWatch
from wire.framing import LINES_SUFFIXES, RefusedBody, split_body, split_lines

RESCAN_S = 60.0
"""A lost notification costs at most this much delay."""

RETRY_S = 30.0
"""A file that can't be read now is tried again so often."""

NOTES_KEPT = 1000
"""Of files that are gone. A kill leaves at most GROUP_FILES of them."""

GROUP_FILES = 200
GROUP_BYTES = 8 * 1024 * 1024
"""So many small files share one commit: a sync for each would wear the card and take minutes for thousands."""

_WAITING_SUFFIXES = (b".tmp", b".part")
_NAME_BYTES_KEPT = 180
_LINES_SUFFIXES = tuple(suffix.encode() for suffix in LINES_SUFFIXES)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one look at a file in processing/ gave."""

    name: bytes
    descriptor: int
    bytes_before: int
    bytes_now: int
    payloads: list[bytes]
    refused: list[Refused]


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
        tally: Tally = no_tally,
    ) -> None:
        self._tally = tally
        self._folder = os.fsencode(folder)
        self._processing = os.path.join(self._folder, b"processing")
        self._rejected = os.path.join(self._folder, b"rejected")
        self._store = store
        self._settle_s = settle_s
        self._file_bytes_max = file_bytes_max
        self._wake = wake
        self._clock = clock
        self._rng = rng
        self._watch = FolderWatch(self._folder, [FileClosedEvent, FileMovedEvent, FileCreatedEvent], self._notified)
        self._complete: set[bytes] = set()
        self._complete_lock = threading.Lock()
        self._seen: dict[bytes, tuple[tuple[int, int, int], float]] = {}
        self._deferred: dict[bytes, float] = {}
        self._renames_synced = False  # an earlier run may have been killed between renaming and syncing

    def start(self) -> None:
        """Make the folders, drop old notes of files that are gone, and listen. Raises LocalFault."""
        try:
            self._prepare()
            self._drop_notes()
            self._watch.start()
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Stop listening."""
        self._watch.close()

    def step(self) -> float:
        """Take what is ready; return in how many seconds to look again. Raises LocalFault."""
        try:
            self._prepare()
            try:
                wait_s = self._take_new()
            finally:  # what lies in processing/ is taken, also where nothing more may be moved there
                names = self._pending()
                self._take_what_fits(names)
        except OSError as error:
            raise self._fault(error) from error
        return 0.0 if names else wait_s

    def _fault(self, error: OSError) -> LocalFault:
        return LocalFault(
            f"{os.fsdecode(self._folder)}: {error.strerror or error}. Check that the folder under [folder] path is "
            "there and may be written by the agent: what it takes, it moves and removes."
        )

    def _prepare(self) -> None:
        """Make what is missing: whoever empties the till's folder must not stop intake."""
        for folder in (self._folder, self._processing, self._rejected):
            os.makedirs(folder, exist_ok=True)
        for folder in (self._processing, self._rejected):
            if os.path.islink(folder):
                raise LocalFault(
                    f"{os.fsdecode(folder)} is a symbolic link. Remove the link: sales must not leave the folder "
                    "that the config names."
                )
        self._watch.keep()

    def _drop_notes(self) -> None:
        """Drop notes of files that are gone, but not while they are few.

        A folder that isn't mounted looks empty, and its half taken files come back with it.
        """
        present = set(os.listdir(self._processing))
        gone = [name for name in self._store.taken_files() if name not in present]
        if len(gone) > NOTES_KEPT:
            self._store.release_files(gone)

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
            if error.errno != errno.EPERM:
                raise  # the folder's own right, not that of one file in a folder with the sticky bit
            log.warning("file_not_movable", file=shown(name), error=error.strerror)
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

    def _take_what_fits(self, names: list[bytes]) -> None:
        try:
            self._take_group(names)
        except SpoolFull:
            if len(names) == 1:
                raise
            self._take_group(names[:1])  # less may still find room

    def _take_group(self, names: list[bytes]) -> None:
        readings: list[_Reading] = []
        try:
            for name in names:
                reading = self._read(name)
                if reading:
                    readings.append(reading)
            if not readings:
                return
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
            self._tally(len(reading.payloads), len(reading.refused))
            log.info(
                "file_taken",
                file=shown(reading.name),
                rows=len(reading.payloads),
                refused=len(reading.refused),
            )

    def _read(self, name: bytes) -> _Reading | None:
        """Read what the spool doesn't have yet of one file; None when that must wait or never will be.

        A bad sector, a missing right or no room for what is refused stops this file, not the others.
        """
        before = self._store.bytes_taken(name) or 0
        descriptor, reading = None, None
        try:
            descriptor = os.open(os.path.join(self._processing, name), os.O_RDONLY | os.O_NOFOLLOW)
            reading = self._read_open(name, descriptor, before)
        except OSError as error:
            self._deferred[name] = self._clock.monotonic_s() + RETRY_S
            log.warning("file_not_taken", file=shown(name), error=error.strerror)
        else:
            self._deferred.pop(name, None)
        finally:
            if descriptor is not None and reading is None:
                os.close(descriptor)
        return reading

    def _read_open(self, name: bytes, descriptor: int, before: int) -> _Reading | None:
        size = os.fstat(descriptor).st_size
        if size - before > self._file_bytes_max:
            self._reject_whole(name, before)
            return None
        content = _read_all(descriptor, size)
        payloads, refused = _divide(name, content, before)
        reading = _Reading(name, descriptor, before, len(content), payloads, refused)
        if refused:
            self._reject(reading)
        return reading

    def _reject(self, reading: _Reading) -> None:
        """Put what can't be taken into rejected/, durably, before the rest counts as taken."""
        path = os.path.join(self._rejected, _rejected_name(reading.name, reading.bytes_before))
        set_beside(path, _original(reading.name), reading.refused)

    def _reject_whole(self, name: bytes, before: int) -> None:
        """Move a file that is too large to read into rejected/. What the spool has of it stays there."""
        reason = f"larger than folder.file_bytes_max = {self._file_bytes_max}: split it and hand it in again"
        if before:
            reason += f" from byte {before} on, for what is before that was taken"
        path = os.path.join(self._rejected, _rejected_name(name, before))
        explain(path, _original(name), [(1, reason)])
        os.rename(os.path.join(self._processing, name), path)
        sync_folder(self._rejected)
        sync_folder(self._processing)
        self._store.release_files([name])

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


def _divide(name: bytes, content: bytes, before: int) -> tuple[list[bytes], list[Refused]]:
    """Divide what follows the first `before` bytes into payloads and what can't be one."""
    fresh = content[before:]
    lines_before = content.count(b"\n", 0, before)
    try:
        pieces = (
            split_lines(fresh, lines_before + 1)
            if before or name.lower().endswith(_LINES_SUFFIXES)
            else split_body(fresh)
        )
        return judge(pieces)
    except RefusedBody as error:
        return [], [Refused(error.line, error.reason, fresh)]


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


def _original(name: bytes) -> bytes:
    """The name that the till gave to a file in processing/."""
    return name.partition(b"-")[2]


def _rejected_name(name: bytes, before: int) -> bytes:
    return name + (b".from-%d" % before if before else b"")
