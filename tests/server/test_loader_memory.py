"""However large an object is, and whatever it holds, the loader needs no more memory for it."""

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
from deliveries import DAY, DEVICE

from server.buckets.folder import FolderBucket
from server.reading import ARRAY_BYTES_MAX

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
assert summary.found == summary.loaded + summary.quarantined == 1
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def sales(mebibytes: int) -> Iterator[bytes]:
    """Long ones, so that the database has few rows to write."""
    note = b"sari-sari " * 25_000
    return (b'{"transaction_id":"t-%d","note":"%s"}\n' % (number, note) for number in range(mebibytes * 4))


def refused_lines(mebibytes: int) -> Iterator[bytes]:
    """Very many of them."""
    return (b'{"transaction_id":"t-%d",%s\n' % (number, b" " * 2000) for number in range(mebibytes * 500))


def one_line(mebibytes: int) -> Iterator[bytes]:
    """Without an end."""
    return (b"x" * MEBIBYTE for _ in range(mebibytes))


def array(mebibytes: int) -> Iterator[bytes]:
    """What is judged as a whole, and so has a limit."""
    return chain([b"["], (b"%s," % sale for sale in sales(mebibytes)), [b"{}]"])


@pytest.mark.parametrize(
    ("lines", "ending"),
    [
        (sales, ".jsonl.gz"),
        (sales, ".json.gz"),
        (refused_lines, ".jsonl.gz"),
        (one_line, ".jsonl.gz"),
        (one_line, ".json.gz"),
        (array, ".json.gz"),
    ],
)
def test_memory_does_not_grow_with_the_object(
    database_url: str, bucket: FolderBucket, lines: Callable[[int], Iterator[bytes]], ending: str
) -> None:
    """Of a hundred times the size the peak is hardly higher."""

    def peak_bytes(mebibytes: int, file: str) -> int:
        path = bucket.folder / str(DAY) / DEVICE / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wb", compresslevel=1) as stored:
            stored.writelines(lines(mebibytes))
        arguments = [sys.executable, "-c", LOADER, database_url, bucket.folder, str(DAY)]
        told = subprocess.run(arguments, capture_output=True, check=True).stdout
        return int(told.splitlines()[-1])

    growth_bytes = -peak_bytes(2, f"small{ending}") + peak_bytes(200, f"large{ending}")

    assert growth_bytes < GROWTH_BYTES_MAX + (2 * ARRAY_BYTES_MAX if lines is array else 0)
