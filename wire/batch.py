"""A batch's name: device, epoch, run of seqs and content hash, and the object key made of them.

May be relied on: the name follows from the content, so the same batch has the same name on every try and on
both paths, and "this name already exists" means "these bytes are already there". `parse` accepts exactly
what `key` writes.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import date

from wire.device import DEVICE_ID_PATTERN, device_id_problem

UNDATED = date(2000, 1, 1)
"""The folder of batches sealed while the device's clock could not be right."""

SUFFIX = ".jsonl.gz"
HASH_DIGITS = 16

_KEY = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})/(?P<device_id>" + DEVICE_ID_PATTERN + r")/"
    r"(?P<epoch>[0-9a-f]{16})-(?P<first>\d{12})-(?P<last>\d{12})-(?P<hash>[0-9a-f]{16})"
    r"(?:-r(?P<resend>[1-9]\d{0,5}))?\.jsonl\.gz",
    re.ASCII,
)


class NotABatchName(ValueError):
    """This is not the name of a batch."""


@dataclass(frozen=True, slots=True)
class BatchName:
    """The identity of a sealed batch: `first_seq..last_seq` of one epoch, without holes."""

    day: date
    device_id: str
    epoch: str  # 16 hex digits
    first_seq: int
    last_seq: int
    hash: str  # first 16 hex digits of the sha256 of the uncompressed JSONL
    resend: int = 0  # 0 for the first copy, else the number under which the server asked for it again

    @property
    def key(self) -> str:
        """The object key within the bucket, and the Idempotency-Key at the ingest endpoint."""
        again = f"-r{self.resend}" if self.resend else ""
        run = f"{self.first_seq:012d}-{self.last_seq:012d}"
        return f"{self.day}/{self.device_id}/{self.epoch}-{run}-{self.hash}{again}{SUFFIX}"

    @property
    def rows(self) -> int:
        """How many lines the batch has."""
        return self.last_seq - self.first_seq + 1

    def again(self, resend: int) -> "BatchName":
        """The name under which a copy travels that the server asked for as number `resend`."""
        return replace(self, resend=resend)

    @classmethod
    def parse(cls, key: str) -> "BatchName":
        """Read an object key; raise NotABatchName when it is anything but what `key` writes."""
        found = _KEY.fullmatch(key)
        if not found:
            raise NotABatchName("not of the form DAY/DEVICE/EPOCH-FIRST-LAST-HASH.jsonl.gz")
        try:
            day = date.fromisoformat(found["day"])
        except ValueError:
            raise NotABatchName("the day is not in the calendar") from None
        first_seq, last_seq = int(found["first"]), int(found["last"])
        if not 1 <= first_seq <= last_seq:
            raise NotABatchName("the run of seqs is empty or begins at 0")
        problem = device_id_problem(found["device_id"])
        if problem:
            raise NotABatchName(problem)
        resend = int(found["resend"] or 0)
        return cls(day, found["device_id"], found["epoch"], first_seq, last_seq, found["hash"], resend)


def content_hash(jsonl: bytes) -> str:
    """Full sha256, in hex, of a batch's uncompressed JSONL: every line ends with a line feed."""
    return hashlib.sha256(jsonl).hexdigest()


def sealing_day(today: date, built_on: date) -> date:
    """The folder for a batch sealed now: today, unless the clock reads before our own build or after 2099."""
    return today if built_on <= today and today.year <= 2099 else UNDATED
