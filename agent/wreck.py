"""What a damaged spool still says of itself: its epochs, its batches, and each record with a proof.

May be relied on
- A record is given only if its own checksum proves it, epoch and seq included; one of an agent that stored none,
  if it reads as a line of its seq.
- A batch is given only if its name agrees with all that stands beside it.
- Memory follows the number of pages and batches, not the size of the file.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from agent.checksum import line_checksum
from agent.connection import SEQS_PER_EPOCH
from agent.pages import Pages, Row, Value
from wire.batch import BatchName, NotABatchName
from wire.record import SEQ_MAX, RefusedLine, from_line

_LINE = re.compile(rb'\{"seq":(\d{1,12}),"id":"[^"]+","captured_at":"([^"]+)"')
_EPOCH = re.compile(rb"[0-9a-f]{16}")
_BATCH_COLUMNS = (
    *("number", "epoch_number", "first_seq", "last_seq", "key", "sha256", "bytes", "sealed_at", "state", "resend"),
    *("refusals", "refusal", "set_aside_mono_ms", "set_aside_boot", "accepted_at", "accepted_by", "settled_at"),
    *("refused_by", "set_aside_at", "exported_at"),
)
_BATCH_COLUMNS_LEAST = 17
"""A row that an older agent wrote ends before the columns that came later."""

_STATES = {"waiting", "accepted", "set_aside", "settled"}

Run = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Proved:
    """A record and its proof's outcome: this is what was stored."""

    seq: int
    captured_at: str
    line: bytes


@dataclass(frozen=True, slots=True)
class OldBatch:
    """A batch as it stood in the damaged file."""

    name: BatchName
    fields: dict[str, int | str | None]

    @property
    def run(self) -> Run:
        """Its first and last seq."""
        return self.name.first_seq, self.name.last_seq


@dataclass(slots=True)
class OldEpoch:
    """An epoch as far as it can be known."""

    number: int
    epoch: str = ""
    boot: str = "unknown"
    opened_at: str = ""
    head: int = 0
    sealed_to: int = 0
    forgotten: int | None = None
    batches: list[OldBatch] = field(default_factory=list)
    lost: list[Run] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)  # first seq, last seq, page

    @property
    def adds_up(self) -> bool:
        """Whether every sealed seq without a batch is known to have been settled and forgotten."""
        covered = sum(last - first + 1 for first, last in (*(batch.run for batch in self.batches), *self.lost))
        return self.forgotten is not None and self.forgotten + covered == self.sealed_to


class Wreck:
    """A damaged spool, surveyed once; its records are read when they are wanted."""

    def __init__(self, pages: Pages, device_id: str) -> None:
        self._pages = pages
        self._device_id = device_id
        self._epochs: dict[int, OldEpoch] = {}
        self._batches: dict[int, tuple[int, OldBatch]] = {}
        self._lost: dict[str, list[Run]] = {}
        self.generation: str | None = None

    def survey(self) -> Iterator[tuple[int, int]]:
        """Look at every page once; yield how many are done, and of how many."""
        for page in range(1, self._pages.count + 1):
            for row in self._pages.rows(page):
                self._note(row, page)
            yield page, self._pages.count
        for number, batch in self._batches.values():
            self._epoch(number).batches.append(batch)
        for epoch in self._epochs.values():
            self._identify(epoch)

    def epochs(self) -> list[OldEpoch]:
        """Epochs that are known by their id, in the order of their numbers."""
        return [epoch for _, epoch in sorted(self._epochs.items()) if epoch.epoch]

    def records(self, epoch: OldEpoch, first: int, last: int) -> Iterator[Proved]:
        """What can be read of a run, by rising seq."""
        pages: list[int] = []
        reach = 0
        for low, high, page in epoch.spans:
            if high < first or low > last:
                continue
            if low > reach:
                yield from self._read(epoch.epoch, pages, first, last)
                pages = []
            pages.append(page)
            reach = max(reach, high)
        yield from self._read(epoch.epoch, pages, first, last)

    def _read(self, epoch: str, pages: Iterable[int], first: int, last: int) -> list[Proved]:
        found = {
            record.seq: record
            for page in pages
            for row in self._pages.rows(page)
            if (record := _proved(row.values, epoch)) and first <= record.seq <= last
        }
        return [found[seq] for seq in sorted(found)]

    def _note(self, row: Row, page: int) -> None:
        line = _line_of(row.values)
        if line is not None:
            number, seq = divmod(row.rowid, SEQS_PER_EPOCH)
            found = _LINE.match(line)
            if found and int(found[1]) == seq:
                _widen(self._epoch(number).spans, seq, page)
        elif batch := _batch_of(row, self._device_id):
            self._batches[row.rowid] = batch
        elif len(row.values) in (8, 9) and _is_text(row.values[1], _EPOCH):
            self._note_epoch(row)
        elif len(row.values) == 5 and _is_text(row.values[1], _EPOCH):
            self._note_lost(row)
        elif len(row.values) == 3 and row.values[1] == self._device_id.encode() and row.rowid == 1:
            self.generation = _text(row.values[2])

    def _note_epoch(self, row: Row) -> None:
        _, epoch, boot, opened_at, head, sealed_to, *_ = row.values
        old = self._epoch(row.rowid)
        if not isinstance(head, int) or not isinstance(sealed_to, int) or not old.head <= head <= SEQ_MAX:
            return
        old.epoch, old.boot, old.opened_at = _text(epoch) or "", _text(boot) or "unknown", _text(opened_at) or ""
        old.head, old.sealed_to = head, sealed_to
        forgotten = row.values[8] if len(row.values) == 9 else None
        old.forgotten = forgotten if isinstance(forgotten, int) else None

    def _note_lost(self, row: Row) -> None:
        _, epoch, first, last, _ = row.values
        if isinstance(first, int) and isinstance(last, int) and 1 <= first <= last <= SEQ_MAX:
            self._lost.setdefault(_text(epoch) or "", []).append((first, last))

    def _epoch(self, number: int) -> OldEpoch:
        return self._epochs.setdefault(number, OldEpoch(number))

    def _identify(self, old: OldEpoch) -> None:
        """Complete what is known. A damaged id gives way to one for which the records' checksums hold."""
        old.spans.sort()
        old.batches.sort(key=lambda batch: batch.run)
        candidates = [old.epoch] if old.epoch else []
        candidates += [name for name in {batch.name.epoch for batch in old.batches} if name != old.epoch]
        proved = (epoch for epoch in candidates if self._holds_for(epoch, old))
        old.epoch = next(proved, candidates[0] if candidates else "")
        old.batches = [batch for batch in old.batches if batch.name.epoch == old.epoch]
        old.lost = self._lost.get(old.epoch, [])
        ends = [old.head, *(span[1] for span in old.spans), *(run[1] for run in old.lost)]
        old.head = max(ends + [batch.run[1] for batch in old.batches])

    def _holds_for(self, epoch: str, old: OldEpoch) -> bool:
        return any(self._read(epoch, [page], 1, SEQ_MAX) for _, _, page in old.spans[:3] + old.spans[-3:])


def _line_of(values: tuple[Value, ...]) -> bytes | None:
    line = values[2] if len(values) in (3, 4) else None
    return line if isinstance(line, bytes) and line.startswith(b'{"seq":') else None


def _proved(values: tuple[Value, ...], epoch: str) -> Proved | None:
    line = _line_of(values)
    found = _LINE.match(line) if line else None
    if not line or not found:
        return None
    checksum = values[3] if len(values) == 4 else None
    is_proved = _reads(line) if checksum is None else checksum == line_checksum(epoch, line)
    return Proved(int(found[1]), found[2].decode(), line) if is_proved else None


def _reads(line: bytes) -> bool:
    try:
        from_line(line)
    except RefusedLine:
        return False
    return True


def _batch_of(row: Row, device_id: str) -> tuple[int, OldBatch] | None:
    if not _BATCH_COLUMNS_LEAST <= len(row.values) <= len(_BATCH_COLUMNS):
        return None
    try:
        fields = {
            column: value.decode() if isinstance(value, bytes) else value
            for column, value in zip_longest(_BATCH_COLUMNS, row.values)
        }
        name = BatchName.parse(str(fields["key"]))
    except (UnicodeDecodeError, NotABatchName):
        return None
    number = fields.pop("epoch_number")
    agrees = (
        (name.first_seq, name.last_seq) == (fields["first_seq"], fields["last_seq"])
        and str(fields["sha256"]).startswith(name.hash)
        and fields["state"] in _STATES
        and name.device_id == device_id
        and isinstance(number, int)
    )
    if not agrees or any(isinstance(value, float) for value in fields.values()):
        return None
    assert isinstance(number, int)
    return number, OldBatch(name, {key: value for key, value in fields.items() if not isinstance(value, float)})


def _widen(spans: list[tuple[int, int, int]], seq: int, page: int) -> None:
    if spans and spans[-1][2] == page:
        low, high, _ = spans[-1]
        spans[-1] = (min(low, seq), max(high, seq), page)
    else:
        spans.append((seq, seq, page))


def _is_text(value: Value, pattern: re.Pattern[bytes]) -> bool:
    return isinstance(value, bytes) and pattern.fullmatch(value) is not None


def _text(value: Value) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None
