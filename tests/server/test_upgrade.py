"""An upgrade while tills go on selling: one migration more rewrites a large table, and is killed in its middle."""

import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from agent_kit import until
from endpoints import bearer
from programs import CLEAN, DEADLINE_S, PROGRAM, Up, data_folder, scout_server, started, up

from server.database import SQL
from server.embedded import dsn_of

CHECKOUT = SQL.parents[1]
POST = "/ingest-transaction"
BEFORE = 5000
"""Sales that the table holds when it is rewritten."""

REWRITES = """
alter table scout_bronze.transactions_raw
add column payload_characters bigint generated always as (length(payload)) stored;
create index transactions_raw_by_length on scout_bronze.transactions_raw (payload_characters);
copy (select 1) to '{folder}/began';
do $$
begin
    -- pg_stat_file's second argument: no error for a file that is not there.
    while (pg_stat_file('{folder}/go', true)).size is null loop
        perform pg_sleep(0.02);
    end loop;
end
$$;
"""


class Newer:
    """This program with one migration more, which waits in its middle until it is let go."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o777)
        self._folder = folder
        for package in ("server", "wire"):
            shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        migration = folder / "server" / "sql" / "migrations" / "900_length.sql"
        migration.write_text(REWRITES.format(folder=folder))
        # Before this checkout, which is where the tests are run.
        self.environment = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}

    @contextmanager
    def started(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run it; it is killed if it has not ended."""
        variables = CLEAN | environment | self.environment
        with subprocess.Popen([*PROGRAM, *words], env=variables, stdout=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

    @property
    def is_in_the_middle(self) -> bool:
        """Whether everything is rewritten, and nothing committed."""
        return (self._folder / "began").exists()

    def let_go(self) -> None:
        """Go on, from here and every later start."""
        (self._folder / "go").touch()


class Till:
    """Sells without end, one after the other, and posts each until it is acknowledged."""

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url
        self._headers = bearer(token)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._sell)
        self.acknowledged: list[str] = []
        self.refused: list[int] = []

    @contextmanager
    def selling(self) -> Iterator["Till"]:
        """Sell for as long as this lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Sell no more; what is under way is acknowledged first."""
        self._stopping.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _sell(self) -> None:
        with httpx.Client(base_url=self._base_url, timeout=DEADLINE_S, trust_env=False) as client:
            while not self._stopping.is_set():
                name = f"t{len(self.acknowledged)}"
                while not self._is_acknowledged(client, name):
                    self._stopping.wait(0.05)

    def _is_acknowledged(self, client: httpx.Client, name: str) -> bool:
        try:
            answer = client.post(POST, content=b'{"transaction_id":"%s"}' % name.encode(), headers=self._headers)
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            self.refused.append(answer.status_code)
            return False
        self.acknowledged.append(name)
        return True

    def until_sold(self, more: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= wanted, f"{more} more sales are acknowledged", DEADLINE_S)


@pytest.fixture
def newer() -> Iterator[Newer]:
    """A newer version."""
    with data_folder() as folder:
        folder.mkdir()
        yield Newer(folder)


def in_bronze(url: str) -> Counter[str]:
    """How often each sale is there."""
    query = "select payload::jsonb ->> 'transaction_id', count(*) from scout_bronze.transactions_raw group by 1"
    with psycopg.connect(url) as connection:
        return Counter(dict(connection.execute(query).fetchall()))


def migrations(url: str) -> list[str]:
    """What the ledger says."""
    with psycopg.connect(url) as connection:
        found = connection.execute("select version from supabase_migrations.schema_migrations order by 1")
        return [version for (version,) in found]


def sell_many(server: Up, token: str) -> list[str]:
    """Fill the table."""
    names = [f"b{number}" for number in range(BEFORE)]
    lines = b"".join(b'{"transaction_id":"%s"}\n' % name.encode() for name in names)
    with server.client() as client:
        headers = bearer(token, Content_Type="application/jsonl")
        client.post(POST, content=lines, headers=headers).raise_for_status()
    return names


def test_nothing_acknowledged_is_lost_or_doubled_by_an_upgrade_that_is_killed_in_the_middle(newer: Newer) -> None:
    """The older one goes on where the killed one left it; the newer one then begins its migration anew, and ends it."""
    with data_folder() as data, up(data) as older:
        address = older.base_url.removeprefix("http://")
        token = older.token()
        names = sell_many(older, token)
        with Till(older.base_url, token).selling() as till:
            till.until_sold(20)
            assert older.end() == 0
            with newer.started("up", "--data", str(data), "--listen", address):
                until(lambda: newer.is_in_the_middle, "the migration is in its middle", DEADLINE_S)
            with up_at(data, address) as again:
                till.until_sold(20)
                between = migrations(dsn_of(data))
                assert again.end() == 0
            newer.let_go()
            with up_at(data, address, **newer.environment):
                till.until_sold(20)
                after = migrations(dsn_of(data))
                # While nothing is under way.
                till.stop()
                found = in_bronze(dsn_of(data))

    assert "900" not in between
    assert after == [*between, "900"]
    assert set(till.refused) <= {503}
    assert found == Counter([*names, *till.acknowledged])


def up_at(data: Path, address: str, **environment: str) -> AbstractContextManager[Up]:
    """Start `up` where it was before."""
    return started("up", data, "--data", data, "--listen", address, **environment)


def test_an_older_serve_answers_while_a_newer_version_migrates(newer: Newer, database_url: str, tmp_path: Path) -> None:
    """What is posted meanwhile waits, and is acknowledged once; afterwards it says of which version the tables are."""
    (tmp_path / "bucket").mkdir()
    secret = "a secret of the tests that is long enough"
    given = {
        "DATABASE_URL": database_url,
        "SCOUT_BUCKET": (tmp_path / "bucket").as_uri(),
        "SUPABASE_JWT_SECRET": secret,
    }
    with started("serve", tmp_path, **given) as older:
        token = scout_server("tokens", "issue", "--name", "pi-05", **given).stdout.strip()
        names = sell_many(older, token)
        with (
            newer.started("migrate", **given) as migrating,
            Till(older.base_url, token).selling() as till,
            older.client() as client,
        ):
            until(lambda: newer.is_in_the_middle, "the migration is in its middle", DEADLINE_S)
            health = client.get("/healthz")
            newer.let_go()
            migrated = migrating.wait(DEADLINE_S)
            till.until_sold(20)
            ready = client.get("/readyz")
        refused = scout_server("migrate", **given)

    assert health.status_code == 200
    assert migrated == 0
    assert in_bronze(database_url) == Counter([*names, *till.acknowledged])
    assert (ready.status_code, ready.json()["schema"]) == (503, "is of a newer version: install that one")
    assert refused.returncode == 1
    assert "900_length" in refused.stderr
