"""Batches, objects and records for tests, made as the agent makes them."""

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from datetime import date
from uuid import UUID

from server.bucket import Bucket
from server.reading import Delivery, read_batch, read_foreign
from wire.batch import BatchName, content_hash
from wire.record import Record, to_line

DAY = date(2026, 1, 20)
DEVICE = "pi-05"
EPOCH = "00000000000000aa"


def record(seq: int, payload: bytes = b"", *, fork: int = 0, device_id: str = DEVICE, epoch: str = EPOCH) -> Record:
    """Make the record at `seq`; another `fork` is another sale at the same seq."""
    seed = f"{device_id} {epoch} {seq} {fork}".encode()
    return Record(
        seq,
        str(UUID(bytes=hashlib.sha256(seed).digest()[:16])),
        "2026-01-20T10:30:00.000Z",
        "synced",
        "b0075",
        1000 + seq,
        payload or b'{"transaction_id":"t-%d-%d","peso_value":150.50}' % (seq, fork),
    )


def jsonl_of(records: Iterable[Record]) -> bytes:
    """Write records as a batch's content."""
    return b"".join(to_line(each) + b"\n" for each in records)


def name_of(
    jsonl: bytes, first_seq: int, last_seq: int, *, device_id: str = DEVICE, epoch: str = EPOCH, resend: int = 0
) -> BatchName:
    """Name a batch after its content."""
    return BatchName(DAY, device_id, epoch, first_seq, last_seq, content_hash(jsonl)[:16], resend)


def batch(seqs: Sequence[int], *, device_id: str = DEVICE, epoch: str = EPOCH) -> tuple[BatchName, bytes]:
    """Seal the records at `seqs`, which have no holes."""
    jsonl = jsonl_of(record(seq, device_id=device_id, epoch=epoch) for seq in seqs)
    return name_of(jsonl, seqs[0], seqs[-1], device_id=device_id, epoch=epoch), jsonl


def put_batch(bucket: Bucket, seqs: Sequence[int], *, device_id: str = DEVICE, epoch: str = EPOCH) -> BatchName:
    """Upload the batch of `seqs`."""
    name, jsonl = batch(seqs, device_id=device_id, epoch=epoch)
    bucket.put_new(name.key, gzip.compress(jsonl))
    return name


def posted(name: BatchName, jsonl: bytes, *, bucket: str = "endpoint", version: str = "") -> Delivery:
    """Read a batch as the endpoint does."""
    return read_batch(jsonl, name, bucket=bucket, key=name.key, version=version)


def foreign(body: bytes, *, key: str = "2026-01-20/pi-05/data.jsonl", device_id: str = DEVICE) -> Delivery:
    """Read JSONL that is not the agent's."""
    return read_foreign(body, lines_only=True, bucket="endpoint", key=key, version="", device_id=device_id)
