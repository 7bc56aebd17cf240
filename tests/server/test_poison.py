"""One bad line among very many batches is one row in quarantine, and nothing else."""

import gzip
from pathlib import Path

from deliveries import DAY, jsonl_of, name_of, record
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket
from server.etl import run_etl
from server.loader import load

BATCHES = 10_000
POISONED = 5_003


def test_one_poison_line_among_ten_thousand_batches_never_stops_the_rest(
    pool: ConnectionPool, bucket: FolderBucket, tmp_path: Path
) -> None:
    """Every other line reaches silver; the poison line is held with its reason and counts as received."""
    for number in range(BATCHES):
        seq = 2 * number + 1
        records = [record(seq), record(seq + 1)]
        if number == POISONED:
            records[1] = record(seq + 1, b'{"transaction_id":"t","peso_value":NaN}')
        jsonl = jsonl_of(records)
        # Written bare: thousands of syncs would test the disk.
        path = tmp_path / "bucket" / name_of(jsonl, seq, seq + 1).key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(jsonl, 1))

    summary = load(pool, bucket, today=DAY)
    run_etl(pool)

    assert (summary.loaded, summary.quarantined, summary.postponed) == (BATCHES, 0, 0)
    assert (summary.accepted, summary.rejected) == (2 * BATCHES - 1, 1)
    with pool.connection() as connection:
        held = connection.execute("select seq, reason from scout_bronze.quarantine").fetchall()
        silver = connection.execute("select count(*) from scout.silver_transactions").fetchone()
    assert [seq for seq, _reason in held] == [2 * POISONED + 2]
    assert "not valid JSON" in held[0][1]
    assert silver == (2 * BATCHES - 1,)
