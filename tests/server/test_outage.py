"""PostgreSQL goes away and comes back under the endpoints: refusals meanwhile, and no restart of ours."""

from pathlib import Path

import pytest
from endpoints import bearer, running
from programs import data_folder
from psycopg_pool import PoolTimeout

from server.buckets.folder import FolderBucket
from server.config import LIMITS
from server.data_directory import DataDirectory
from server.database import open_pool
from server.embedded import EmbeddedPostgres
from server.schema import migrate

LONG_OUTAGE_S = 8.0
"""By then a pool that doubles its waits from a second on would not look again for seven more."""

SALE = b'{"transaction_id":"t1"}'


def test_every_endpoint_says_503_while_postgres_is_away_and_works_again_when_it_is_back(tmp_path: Path):
    """Every endpoint says 503 while PostgreSQL is away and works again when it is back."""
    with (
        data_folder() as folder,
        DataDirectory(folder) as directory,
        EmbeddedPostgres(directory) as postgres,
        open_pool(postgres.dsn) as pool,
    ):
        with pool.connection() as connection:
            migrate(connection)
        with running(pool, FolderBucket(tmp_path), database_wait_s=0.5) as server:
            headers = bearer(server.device())
            requests = [
                ("POST", "/ingest-transaction", SALE),
                ("POST", "/rest/v1/rpc/heartbeat", b'{"nonce":"n"}'),
                ("POST", "/storage/v1/object/scout-ingest/2026-01-20/pi-05/data.jsonl", SALE),
                ("GET", "/healthz", b""),
            ]

            def answers() -> list[int]:
                return [
                    server.client.request(method, url, content=body, headers=headers).status_code
                    for method, url, body in requests
                ]

            postgres.stop()
            away = answers()
            postgres.start()
            with pool.connection(30):
                pass  # given back, so that the next one need not be made within database_wait_s
            back = answers()

            assert away == [503, 503, 500, 503]
            assert back == [200] * 4
            assert server.rows("select payload from scout_bronze.transactions_raw") == [(SALE.decode(),)]


def test_a_pool_finds_a_postgres_that_was_long_away_as_soon_as_it_is_back():
    """Within the time that an endpoint waits for a connection."""
    with (
        data_folder() as folder,
        DataDirectory(folder) as directory,
        EmbeddedPostgres(directory) as postgres,
        open_pool(postgres.dsn) as pool,
    ):
        with pool.connection():
            postgres.stop()
        with pytest.raises(PoolTimeout), pool.connection(LONG_OUTAGE_S):
            pass
        postgres.start()

        with pool.connection(LIMITS.database_wait_s) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
