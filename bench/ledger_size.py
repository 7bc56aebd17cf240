"""What finding and loading 100 new objects costs, beside a thousand ledger rows and beside a million.

    python bench/ledger_size.py

Both ledgers lie on one PostgreSQL, and the runs alternate, so that what else the machine does meets both. The bucket
holds the day's folder only, as a loader lists it; the ledger holds what came before. Fails when the large one costs
more than RATIO_MAX times the small one.
"""

import gzip
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from time import perf_counter

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket
from server.data_directory import DataDirectory
from server.database import open_pool
from server.embedded import EmbeddedPostgres
from server.loader import load
from server.schema import migrate

ROWS = (1_000, 1_000_000)
OBJECTS = 100
RUNS = 9
RATIO_MAX = 1.5
TODAY = date(2026, 1, 20)
FILL = """
insert into scout_bronze.files (
    bucket, key, version, device_id, batch, resend, epoch, first_seq, last_seq, state, loaded_at, bytes, lines,
    accepted, duplicates, rejected, sha256
)
select
    'scout-ingest', key, 'v', device, key, 0, '00000000000000aa', n, n, 'loaded', now(), 1, 1, 1, 0, 0, md5(key)
from generate_series(1, %(rows)s) as n
cross join lateral (select format('pi-%%s', n %% 5000) as device) as of_device
cross join lateral (
    select format(
        '%%s/%%s/00000000000000aa-%%s-%%s-%%s.jsonl.gz', date '2025-01-01' + (n %% 365), device, lpad(n::text, 12, '0'),
        lpad(n::text, 12, '0'), left(md5(n::text), 16)
    ) as key
) as of_key
"""


def main() -> int:
    """Measure and print; the exit status says whether the cost stays."""
    with tempfile.TemporaryDirectory(prefix="scout-bench-") as folder, ExitStack() as house:
        home = Path(folder)
        home.chmod(0o711)
        data = house.enter_context(DataDirectory(home / "data"))
        postgres = house.enter_context(EmbeddedPostgres(data))
        pools = {rows: house.enter_context(open_pool(_filled(postgres.dsn, rows))) for rows in ROWS}
        buckets = {rows: FolderBucket(home / f"bucket-{rows}") for rows in ROWS}
        times_ms: dict[int, list[float]] = {rows: [] for rows in ROWS}
        for run in range(RUNS):
            for rows in ROWS:
                times_ms[rows].append(_found_and_loaded_ms(pools[rows], buckets[rows], run))
    medians = {rows: statistics.median(times) for rows, times in times_ms.items()}
    small, large = (medians[rows] for rows in ROWS)
    for rows in ROWS:
        print(f"{OBJECTS} new objects beside {rows:>9,} ledger rows: {medians[rows]:6.1f} ms (median of {RUNS} runs)")
    print(f"ratio {large / small:.2f}, at most {RATIO_MAX}")
    return int(large / small > RATIO_MAX)


def _filled(dsn: str, rows: int) -> str:
    name = f"bench_{rows}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    url = make_conninfo(dsn, dbname=name)
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
        connection.execute(FILL, {"rows": rows})
        connection.execute("vacuum analyze")
    return url


def _found_and_loaded_ms(pool: ConnectionPool, bucket: FolderBucket, run: int) -> float:
    for number in range(OBJECTS):
        body = gzip.compress(b'{"transaction_id":"t-%d-%d","peso_value":150.50}\n' % (run, number))
        bucket.put_new(f"{TODAY}/pi-{number}/{run}.jsonl.gz", body)
    began = perf_counter()
    summary = load(pool, bucket, today=TODAY)
    took_ms = (perf_counter() - began) * 1000
    assert (summary.found, summary.loaded, summary.accepted) == (OBJECTS, OBJECTS, OBJECTS), summary
    return took_ms


if __name__ == "__main__":
    sys.exit(main())
