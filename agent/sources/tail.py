"""The tail source: follows the files that a till appends to, a sale a line, and rotates as it likes.

May be relied on
- How far a file was read is committed with what was read, in one transaction: a kill or a power cut between any two
  steps neither loses nor doubles a line, and the lines of one file keep their order.
- A line is taken when its line feed is there. The last line of a file that was renamed or deleted is taken without,
  if it is a sale, once the file has rested for SETTLE_S; else it is rejected like any bad line.
- agent/sources/roll.py says what becomes of files that are renamed, copied, truncated, rewritten or deleted.
- A file is synced before its mark is committed. Else a power cut could take back, or leave as NULs, bytes that are
  marked as taken; the file would look like another one and all its sales be taken twice.
- Nothing is written into the till's folder, which may be read-only. What can't be taken goes, with its reason, into
  rejected/ in the spool's directory, before the rest counts as taken.
- A step takes at most GROUP_BYTES of GROUP_FILES in one commit, each file having its turn.

Notifications only shorten the wait: every step looks at the folder itself.
"""

import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent

from agent.clock import Clock
from agent.errors import LocalFault
from agent.intake import TailStore, Tally, no_tally
from agent.sources.listing import sync_file
from agent.sources.rejected import set_beside
from agent.sources.roll import Roll
from agent.sources.tailed_file import TailedFile
from agent.sources.turn import TURN_BYTES, Turn, take_turn
from agent.sources.watch import FolderWatch

GROUP_FILES = 100
GROUP_BYTES = 4 * TURN_BYTES
"""What one commit holds at most: each file is synced for itself, and other sources wait meanwhile."""

GROUP_S = 0.2
"""At least so long between two commits: each syncs a file and the spool, and a till may write line by line."""

_NAME_BYTES_KEPT = 180


class TailSource:
    """Follows one folder. `step` does the work; `start` and `close` bracket the notifications."""

    def __init__(
        self,
        folder: Path,
        store: TailStore,
        *,
        rejected: Path,
        wake: Callable[[], None],
        clock: Clock,
        tally: Tally = no_tally,
    ) -> None:
        self._folder = os.fsencode(folder)
        self._rejected = os.fsencode(rejected)
        self._store = store
        self._clock = clock
        self._tally = tally
        self._watch = FolderWatch(
            self._folder,
            [FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileDeletedEvent],
            lambda _name: wake(),
        )
        self._roll: Roll | None = None
        self._turns_taken = 0
        self._next_at_s = float("-inf")

    def start(self) -> None:
        """Listen. Raises LocalFault when the folder isn't there."""
        try:
            self._watch.start()
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Stop listening, and let go of the files."""
        self._watch.close()
        self._forget()

    def step(self) -> float:
        """Take what is ready; return in how many seconds to look again. Raises LocalFault."""
        pause_s = self._next_at_s - self._clock.monotonic_s()
        if pause_s > 0:
            return pause_s
        try:
            self._watch.keep()
            return self._take()
        except OSError as error:
            self._forget()
            raise self._fault(error) from error
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Forget what may not have been committed: the spool knows what was."""
        if self._roll:
            self._roll.close()
        self._roll = None

    def _fault(self, error: OSError) -> LocalFault:
        return LocalFault(
            f"{os.fsdecode(self._folder)}: {error.strerror or error}. Check that the folder under [tail] path is there "
            "and may be read by the agent."
        )

    def _take(self) -> float:
        roll = self._roll or Roll(self._folder, self._store.tail_marks(), self._clock)
        self._roll = roll
        notes = roll.look()
        if notes:
            self._store.append([], notes)
        taken = self._take_turns(roll)
        if taken:
            self._reject(taken)
            self._commit(taken)
        if any(file.has_news and file.size - file.read_to >= TURN_BYTES for file in roll.files):
            return 0.0
        self._next_at_s = self._clock.monotonic_s() + GROUP_S
        return roll.look_again_in_s()

    def _take_turns(self, roll: Roll) -> list[tuple[TailedFile, Turn]]:
        """Read a turn of each file that has news, those first that waited longest."""
        taken: list[tuple[TailedFile, Turn]] = []
        bytes_left = GROUP_BYTES
        for file in sorted(roll.files, key=lambda file: (file.turn, file.changed_ns)):
            is_final = roll.is_final(file)
            if bytes_left <= 0 or len(taken) >= GROUP_FILES or not (is_final or file.has_news):
                continue
            self._turns_taken += 1
            file.turn = self._turns_taken
            try:
                turn = take_turn(file.open(), file.mark, file.limit, is_final=is_final)
                if turn:
                    sync_file(file.open())
            except OSError as error:
                roll.put_off(file, error)
                continue
            if turn:
                taken.append((file, turn))
                bytes_left -= turn.mark.bytes_taken - file.mark.bytes_taken
            else:
                file.read_to = file.limit
            if is_final:
                file.finished_at = file.size
        return taken

    def _reject(self, taken: list[tuple[TailedFile, Turn]]) -> None:
        """Put what can't be taken into rejected/, durably, before the rest counts as taken. Raises LocalFault."""
        try:
            os.makedirs(self._rejected, exist_ok=True)
            for file, turn in taken:
                if turn.refused:
                    set_beside(os.path.join(self._rejected, _rejected_name(file)), file.mark.name, turn.refused)
        except OSError as error:
            raise LocalFault(
                f"{os.fsdecode(self._rejected)}: {error.strerror or error}. The agent must be able to write there what "
                "it can't take; until then nothing is taken."
            ) from error

    def _commit(self, taken: list[tuple[TailedFile, Turn]]) -> None:
        payloads = [payload for _, turn in taken for payload in turn.payloads]
        self._store.append(payloads, [turn.mark for _, turn in taken])
        for file, turn in taken:
            file.mark, file.read_to = turn.mark, turn.mark.bytes_taken
            self._tally(len(turn.payloads), len(turn.refused))


def _rejected_name(file: TailedFile) -> bytes:
    """The same for the same place of the same content, so that a second try writes the same file."""
    mark = file.mark
    return b"%08d-%s.from-%d" % (mark.number, mark.name[-_NAME_BYTES_KEPT:], mark.bytes_taken)
