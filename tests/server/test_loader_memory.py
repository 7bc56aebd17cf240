"""However large an object is, and whatever it holds, the loader needs no more memory for it."""

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest
from deliveries import DAY, DEVICE
from test_loader import rows

from server.buckets.folder import FolderBucket

MEBIBYTE = 1024 * 1024
GROWTH_BYTES_MAX = 20 * MEBIBYTE
# The peak of this program alone: what a parent had counts into getrusage's.
LOADER = """
import sys
from datetime import date
from pathlib import Path
from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.loader import load

with open_pool(sys.argv[1], size_max=1) as pool:
    summary = load(pool, FolderBucket(Path(sys.argv[2])), today=date.fromisoformat(sys.argv[3]))
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(summary.loaded + summary.quarantined, int(peak.split()[1]) * 1024)
"""


def sales(mebibytes: int) -> Iterator[bytes]:
    """Long ones, so that the database has few rows to write."""
    note = b"sari-sari " * 25_000
    return (b'{"transaction_id":"t-%d","note":"%s"}\n' % (number, note) for number in range(mebibytes * 4))


def refused_lines(mebibytes: int) -> Iterator[bytes]:
    """Very many of them, each with its own reason."""
    return (b'{"transaction_id":"t-%d",%s\n' % (number, b" " * 500) for number in range(mebibytes * 2000))


def one_line(mebibytes: int) -> Iterator[bytes]:
    """Without an end."""
    return (b"x" * MEBIBYTE for _ in range(mebibytes))


@pytest.mark.parametrize(("lines", "mebibytes"), [(sales, 200), (refused_lines, 60), (one_line, 200)])
def test_memory_does_not_grow_with_the_object(
    database_url: str,
    bucket: FolderBucket,
    connection: psycopg.Connection,
    lines: Callable[[int], Iterator[bytes]],
    mebibytes: int,
) -> None:
    """Of a hundred times the size the peak is hardly higher; all of it is held."""

    def peak_bytes(size_mebibytes: int, file: str) -> int:
        path = bucket.folder / str(DAY) / DEVICE / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wb", compresslevel=1) as stored:
            stored.writelines(lines(size_mebibytes))
        arguments = [sys.executable, "-c", LOADER, database_url, bucket.folder, str(DAY)]
        objects, peak = map(int, subprocess.run(arguments, capture_output=True, check=True).stdout.split())
        assert objects == 1
        return peak

    small = peak_bytes(2, "small.jsonl.gz")
    large = peak_bytes(mebibytes, "large.jsonl.gz")

    assert large - small < GROWTH_BYTES_MAX
    ledger = "select state, bytes > 50000000 from scout_bronze.files order by file_id"
    assert rows(connection, ledger) == [("loaded", False), ("loaded", True)]
