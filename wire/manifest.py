"""What lies on a stick beside the batches: which objects were exported, and the checksums of their files.

    2026-11-25/pi-05/<name>.jsonl.gz   the batches, each under its object key
    manifest.jsonl                     one line an object
    SHA256SUMS                         for `sha256sum -c`, made of the manifest

May be relied on: `from_line` accepts exactly what names a batch, so a key read from a manifest leads nowhere
outside the folder it lies in. Fields that this version doesn't know are ignored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from wire.batch import BatchName, NotABatchName

MANIFEST = "manifest.jsonl"
CHECKSUMS = "SHA256SUMS"

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class NotAManifestLine(ValueError):
    """This line names no exported batch."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One exported batch. `sha256` is of its uncompressed JSONL, `file_sha256` and `bytes` are of the file."""

    key: str
    sha256: Digest
    rows: int
    bytes: int
    file_sha256: Digest
    device: str
    epoch: str
    first_seq: int
    last_seq: int

    @classmethod
    def of(cls, name: BatchName, sha256: str, file_bytes: int, file_sha256: str) -> "ManifestEntry":
        """Describe a batch and the file that holds it."""
        run = (name.device_id, name.epoch, name.first_seq, name.last_seq)
        return cls(name.key, sha256, name.rows, file_bytes, file_sha256, *run)


def to_line(entry: ManifestEntry) -> bytes:
    """Write an entry as one line of the manifest, line feed included."""
    return msgspec.json.encode(entry) + b"\n"


def from_line(line: bytes) -> ManifestEntry:
    """Read one line; raise NotAManifestLine unless all of it agrees with the name of a batch."""
    try:
        entry = msgspec.json.decode(line, type=ManifestEntry)
        name = BatchName.parse(entry.key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotAManifestLine("it is not in the shape of a manifest's line") from None
    except NotABatchName as problem:
        raise NotAManifestLine(f"its key names no batch: {problem}") from None
    expected = ManifestEntry.of(name, entry.sha256, entry.bytes, entry.file_sha256)
    if entry != expected or entry.sha256[:16] != name.hash:
        raise NotAManifestLine("its fields contradict its key")
    return entry


def checksums_of(files: Iterable[tuple[str, str]]) -> bytes:
    """Write (path, sha256) pairs as `sha256sum -c` reads them."""
    return b"".join(f"{sha256}  {path}\n".encode() for path, sha256 in files)
