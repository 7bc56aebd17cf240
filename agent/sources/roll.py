"""The roll of a till's folder: which file holds which content, whatever was done to its names.

May be relied on: a content that was met has one mark, and the mark follows it. What can happen to a file, and what
is made of it:

| what happens                             | how it is known                                  | what is done         |
|------------------------------------------|--------------------------------------------------|----------------------|
| lines are appended                       | same inode, fits its mark                        | read on              |
| renamed, to any name in the folder       | same inode, fits its mark                        | read on to its end   |
| a new file under the old name            | an inode that nothing is known of                | read from its start  |
| shrunk, emptied, rewritten               | same inode, doesn't fit                          | read from its start  |
| deleted, and its inode given to another  | same inode, doesn't fit                          | read from its start  |
| copied, then truncated                   | another inode fits; the old one holds something  | the mark moves to    |
|                                          | else                                             | the copy: read on    |
| copied, not truncated (yet)              | begins like a file that is there                 | nothing, till it is  |
|                                          |                                                  | truncated or settles |
| moved through another file system,       | another inode fits, the old one is gone, and the | the mark moves there |
| restored, rewritten whole and longer     | bytes say enough (agent/sources/proof.py)        |                      |
| moved away or deleted, while open        | its descriptor                                   | read to its end      |
| moved away or deleted, while not open    | gone                                             | its mark waits       |
| a symbolic link, a folder, a pipe        | it isn't a file                                  | left alone           |

Only names that end in `.jsonl` begin anew; under which names a content goes on doesn't matter. What nobody looked at
before it lost such a name, or was compressed, isn't read. A copy that is no part of a rotation settles after SETTLE_S:
it was read already if its bytes say enough, and else it is a new file.

Marks without a file are kept, for what is unmounted comes back; of more than UNCLAIMED_MAX the oldest are dropped.

No byte is read before the folder was looked at once more: so a copy that ends before that byte is met first, and is
known though the original is truncated and the agent killed right after.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from agent.clock import Clock
from agent.intake import DroppedMark, Note, TailMark
from agent.sources.copies import Changing, continued_here, mark_of_copy, original_of
from agent.sources.listing import Entry, Signature, list_files, open_file, signature_of, sync_file
from agent.sources.proof import fits, proof_at
from agent.sources.rejected import shown
from agent.sources.tailed_file import FIRST_BYTES, TailedFile

SETTLE_S = 60.0
"""A copy of which nobody truncated the original, and a file that was renamed, is final when it rests for so long."""

RIPE_S = 1.0
"""Two changes within one tick of the file system's clock look like one: only then an unchanged file is believed."""

RETRY_S = 30.0
"""A file that can't be read now is tried again so often."""

SOON_S = 0.2
RESCAN_S = 60.0
"""A lost notification costs at most this much delay."""

OPEN_MAX = 64
"""So many files, those changed last, are held open: what is moved away or deleted is read to its end."""

MEET_MAX = 100
"""At one look: each is synced, and other sources wait meanwhile."""

UNCLAIMED_MAX = 10_000

NO_INODE = 0
"""Of the mark of a file that was seen to be gone, or emptied a while ago."""

log = structlog.get_logger()


class Roll:
    """The files of one folder with their marks."""

    def __init__(self, folder: bytes, marks: Iterable[TailMark], clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._unclaimed = {mark.number: mark for mark in marks}
        self._next_number = max(self._unclaimed, default=0) + 1
        self._files: dict[int, TailedFile] = {}
        self._entries: dict[int, Entry] = {}
        self._notes: list[Note] = []
        self._strangers: dict[int, Entry] = {}
        self._retry_at_s: dict[int, float] = {}
        self._emptied_since_s: dict[int, float] = {}
        self._place: tuple[int, int] | None = None
        self._is_sure = True

    def close(self) -> None:
        """Let go of every descriptor."""
        for file in self._files.values():
            file.close()

    @property
    def files(self) -> list[TailedFile]:
        """The files that are followed."""
        return list(self._files.values())

    def is_final(self, file: TailedFile) -> bool:
        """Whether what is left behind the last line feed is all that comes."""
        if file.signature is None or not file.is_away or not file.has_rest or file.has_news:
            return False
        return file.limit == file.size and self.rested_s(file) >= SETTLE_S

    def look_again_in_s(self) -> float:
        """Seconds until something may be said that couldn't be now, if no notification comes before."""
        if not self._is_sure or any(file.has_news for file in self.files):
            return SOON_S
        open_ends = [file for file in self.files if file.is_copy or (file.is_away and file.has_rest)]
        return min([RESCAN_S, *(max(SOON_S, SETTLE_S - self.rested_s(file)) for file in open_ends)])

    def rested_s(self, file: TailedFile) -> float:
        """For how long a file looks as it does."""
        return self._clock.monotonic_s() - file.since_s

    def put_off(self, file: TailedFile, error: OSError) -> None:
        """Leave a file alone for RETRY_S, for a bad sector or a missing right, and no other."""
        self._put_off(file.mark.inode, file.name, error)

    def look(self) -> list[Note]:
        """Look at the folder; return the marks that were made, moved or dropped. Raises OSError.

        They must be committed before anything is read, and a Roll that failed be made anew.
        """
        self._notes, self._is_sure = [], True
        for file in self._files.values():
            file.limit = file.size if file.descriptor is None else os.fstat(file.descriptor).st_size
        self._see_place()
        self._entries = list_files(self._folder, {inode: file.mark.name for inode, file in self._files.items()})
        self._see_gone()
        unknown = self._undecided(self._is_same, self._entries.values())
        # Whatever has a mark finds it first; then it can be said of the others what they are.
        unknown = self._undecided(self._is_claimed, unknown)
        # A copy that is none may be the original of what is met; what is met may be a better copy than another.
        self._undecided(self._judge_copy, self._copies(of_what_is_there=True))
        unknown = sorted(filter(self._is_news, unknown), key=Entry.originality)
        self._undecided(self._meet, unknown[:MEET_MAX])
        self._is_sure &= len(unknown) <= MEET_MAX
        self._undecided(self._judge_copy, self._copies(of_what_is_there=False))
        self._forget_emptied()
        self._drop_unclaimed()
        return self._notes

    def _copies(self, *, of_what_is_there: bool) -> list[Entry]:
        """Files that began like another that is there, or is no more; of the latter the longest goes on first."""
        there = {file.mark.number for file in self.files}
        copies = [file for file in self.files if file.is_copy and not file.is_gone]
        chosen = [self._entries[file.mark.inode] for file in copies if (file.mark.copy_of in there) == of_what_is_there]
        return sorted(chosen, key=Entry.originality)

    def _undecided(self, decide: Callable[[Entry], bool], entries: Iterable[Entry]) -> list[Entry]:
        """Decide about each file that isn't put off; return those of which more must be said at this look."""
        return [entry for entry in entries if not self._attempt(decide, entry)]

    def _attempt(self, decide: Callable[[Entry], bool], entry: Entry) -> bool:
        if self._retry_at_s.get(entry.inode, 0.0) > self._clock.monotonic_s():
            return True
        try:
            return decide(entry)
        except Changing:
            self._is_sure = False
            return True
        except OSError as error:
            self._put_off(entry.inode, entry.name, error)
            return True

    def _put_off(self, inode: int, name: bytes, error: OSError) -> None:
        file = self._files.get(inode)
        if file:
            file.read_to, file.signature, file.is_believed = file.size, None, False
        if not isinstance(error, FileNotFoundError):  # else it was renamed or removed meanwhile
            self._retry_at_s[inode] = self._clock.monotonic_s() + RETRY_S
            log.warning("file_not_taken", file=shown(name), error=error.strerror)

    # What is there

    def _see_place(self) -> None:
        """Leave every file when another folder lies at the path: what was unmounted comes back as it was."""
        status = os.stat(self._folder)
        place = (status.st_dev, status.st_ino)
        if place != self._place:
            for file in self.files:
                self._leave(file)
        self._place = place

    def _see_gone(self) -> None:
        for inode, file in list(self._files.items()):
            if inode in self._entries:
                continue
            if file.descriptor is None:
                self._lose(file)
                continue
            file.is_gone = True
            status = os.fstat(file.descriptor)
            self._see(file, status.st_size, signature_of(status))
            if self.rested_s(file) >= SETTLE_S and not file.has_rest:
                self._lose(file)

    def _see(self, file: TailedFile, size: int, signature: Signature) -> None:
        """Note how a file looks; when that changed, all of it behind its mark is news."""
        if file.signature != signature:
            file.signature, file.since_s, file.is_believed = signature, self._clock.monotonic_s(), False
            file.size, file.read_to, file.finished_at = size, file.mark.bytes_taken, -1

    # What it is

    def _is_same(self, entry: Entry) -> bool:
        """Whether a file that is followed still holds its content."""
        file = self._files.get(entry.inode)
        if file is None:
            return False
        file.path, file.name, file.is_gone = entry.path, entry.name, False
        self._see(file, entry.size, entry.signature)
        if file.is_believed:
            return True
        if not fits(file.open(), file.mark):
            log.warning("file_rewritten", file=shown(entry.name), bytes_taken=file.mark.bytes_taken)
            self._leave(file)
            return False
        file.first = os.pread(file.open(), FIRST_BYTES, 0)
        file.is_believed = self.rested_s(file) >= RIPE_S
        self._hold_few()
        return True

    def _is_claimed(self, entry: Entry) -> bool:
        """Whether a file holds what the newest mark that it fits says of its inode, as after a restart."""
        marks = [mark for mark in self._unclaimed.values() if mark.inode == entry.inode]
        if not marks:
            return False
        descriptor = open_file(entry.path, entry.inode)
        try:
            mark = max((mark for mark in marks if fits(descriptor, mark)), key=lambda mark: mark.number, default=None)
            if mark is not None and mark.bytes_taken:  # else nothing of it was read, and nothing is known
                self._claim(entry, mark, descriptor)
        finally:
            self._close_unless_followed(entry, descriptor)
        return entry.inode in self._files

    def _is_news(self, entry: Entry) -> bool:
        """Whether a file that needed no mark looks different now, or may fit a mark that waits since."""
        return entry != self._strangers.get(entry.inode)

    def _meet(self, entry: Entry) -> bool:
        """Give a file that nothing is known of the mark that it needs, if it needs one."""
        descriptor = open_file(entry.path, entry.inode)
        try:
            mark = self._moved_mark(entry, descriptor) or self._first_mark(entry, descriptor)
            if mark is not None:
                self._claim(entry, self._noted(mark, descriptor), descriptor)
            else:
                self._strangers[entry.inode] = entry
        finally:
            self._close_unless_followed(entry, descriptor)
        return True

    def _moved_mark(self, entry: Entry, descriptor: int) -> TailMark | None:
        """The mark of a content that was elsewhere."""
        gone = [file.mark for file in self.files if file.is_gone and not file.has_rest and not file.is_copy]
        known = [mark for mark in self._unclaimed.values() if mark.copy_of is None]
        mark = continued_here(entry, descriptor, [*gone, *known], self._entries)
        if mark is None:
            return None
        log.info("file_continued", file=shown(entry.name), bytes_taken=mark.bytes_taken)
        return replace(mark, inode=entry.inode)

    def _first_mark(self, entry: Entry, descriptor: int) -> TailMark | None:
        """The mark of a content that is new, or so far a copy."""
        # One met before, of which nothing was read, keeps its number: what was refused is named by it.
        met = next((m for m in self._unclaimed.values() if m.inode == entry.inode and not m.bytes_taken), None)
        if not entry.size or not (met or entry.is_tills):
            return None
        original = original_of(entry, descriptor, self.files)
        mark = met or TailMark(self._next_number, entry.inode, entry.name)
        self._next_number = max(self._next_number, mark.number + 1)
        if original is None:
            log.info("file_met", file=shown(entry.name))
            return mark
        log.info("copy_met", file=shown(entry.name), of=shown(original.name))
        return replace(mark, bytes_taken=os.fstat(descriptor).st_size, copy_of=original.mark.number)

    def _judge_copy(self, entry: Entry) -> bool:
        """See what became of a file that began like another."""
        file = self._files[entry.inode]
        number = file.mark.copy_of
        original = next((other for other in self.files if other.mark.number == number), None)
        left = self._unclaimed.get(number) if number is not None else None
        is_settled = self.rested_s(file) >= SETTLE_S
        mark = mark_of_copy(file, original, left, self._entries, is_settled=is_settled)
        if mark == file.mark:
            return True
        mark = self._noted(mark, file.open())
        if mark.number != file.mark.number:
            self._notes.append(DroppedMark(file.mark.number))
            del self._unclaimed[mark.number]
        file.mark = mark
        file.read_to = mark.bytes_taken
        log.info("copy_judged", file=shown(file.name), is_copy=mark.bytes_taken > 0, bytes_taken=mark.bytes_taken)
        return True

    # Marks

    def _noted(self, mark: TailMark, descriptor: int) -> TailMark:
        """Prove a mark on its file and let it be committed.

        Only what is on the card may be marked as taken, and a truncation must be before a mark says so: else the
        old content came back after a cut, and nobody knew it.
        """
        if mark.bytes_taken:
            head, near = proof_at(descriptor, mark.bytes_taken)
            mark = replace(mark, head=head, near=near)
        sync_file(descriptor)
        self._notes.append(mark)
        return mark

    def _claim(self, entry: Entry, mark: TailMark, descriptor: int) -> None:
        """Follow a file under a mark. Nothing of it is read before the next look."""
        first = os.pread(descriptor, FIRST_BYTES, 0)
        for other in self.files:
            if other.mark.number == mark.number:  # its content went on here
                self._leave(other)
        self._unclaimed.pop(mark.number, None)
        file = TailedFile(entry.path, entry.name, mark, descriptor, first=first)
        self._see(file, entry.size, entry.signature)
        self._files[entry.inode] = file
        self._hold_few()

    def _close_unless_followed(self, entry: Entry, descriptor: int) -> None:
        if entry.inode not in self._files:
            os.close(descriptor)

    def _leave(self, file: TailedFile) -> None:
        """Follow a file no more. Its mark waits for the content to be seen again."""
        file.close()
        del self._files[file.mark.inode]
        if file.is_copy or not file.mark.bytes_taken:
            self._notes.append(DroppedMark(file.mark.number))
        else:
            self._unclaimed[file.mark.number] = file.mark
        self._strangers.clear()

    def _lose(self, file: TailedFile) -> None:
        """Follow a file no more that is gone from the folder: its inode may be another's from now on."""
        self._leave(file)
        mark = self._unclaimed.get(file.mark.number)
        if mark:
            self._unclaimed[mark.number] = replace(mark, inode=NO_INODE)
            self._notes.append(self._unclaimed[mark.number])

    def _hold_few(self) -> None:
        held = [file for file in self._files.values() if file.descriptor is not None and not file.is_gone]
        if len(held) > OPEN_MAX:
            min(held, key=lambda file: file.changed_ns).close()

    def _forget_emptied(self) -> None:
        """Forget which file was emptied long ago: a copy lies there before that, and what comes later is none."""
        now_s = self._clock.monotonic_s()
        emptied = [m for m in self._unclaimed.values() if m.inode in self._entries and m.inode not in self._retry_at_s]
        self._emptied_since_s = {mark.number: self._emptied_since_s.get(mark.number, now_s) for mark in emptied}
        for mark in emptied:
            if now_s - self._emptied_since_s[mark.number] >= SETTLE_S:
                self._unclaimed[mark.number] = replace(mark, inode=NO_INODE)
                self._notes.append(self._unclaimed[mark.number])

    def _drop_unclaimed(self) -> None:
        """Drop what no look can need any more: marks of nothing, and the oldest of very many."""
        useless = {
            number for number, mark in self._unclaimed.items() if mark.copy_of is not None or not mark.bytes_taken
        }
        rest = sorted(self._unclaimed.keys() - useless)
        for number in [*useless, *rest[: max(0, len(rest) - UNCLAIMED_MAX)]]:
            del self._unclaimed[number]
            self._notes.append(DroppedMark(number))
        self._retry_at_s = {inode: at_s for inode, at_s in self._retry_at_s.items() if inode in self._entries}
