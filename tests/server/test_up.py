"""`scout-server up`, end to end: one command, one directory, nothing lost whatever dies."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from endpoints import bearer
from programs import CLEAN, DEADLINE_S, PROGRAM, data_folder, scout_server, started, up

from server.embedded import dsn_of
from server.errors import PostgresUnavailable

POST = "/ingest-transaction"
JSONL = (
    b'{"transaction_id":"a1","store_id":"102","peso_value":1.5}\n'
    b'{"transaction_id":"a2","store_id":"102","peso_value":2.5}\n'
)


@pytest.fixture
def data():
    """A place for a data directory."""
    with data_folder() as folder:
        yield folder


def ask(data: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the database of the server in `data`."""
    with psycopg.connect(dsn_of(data)) as connection:
        return connection.execute(query.encode()).fetchall()


def transaction_ids(data: Path) -> set[str]:
    """Every transaction_id in bronze."""
    found = ask(data, "select payload::jsonb ->> 'transaction_id' from scout_bronze.transactions_raw")
    return {row[0] for row in found}


def poll(wanted: Callable[[], bool]) -> None:
    """Wait until this holds."""
    pause = threading.Event()
    for _ in range(DEADLINE_S * 20):
        with suppress(PostgresUnavailable, psycopg.OperationalError):
            if wanted():
                return
        pause.wait(0.05)
    raise AssertionError("it did not come to hold in time")


def test_the_seeds_commands_bring_sales_to_silver(data: Path):
    """The seed's commands bring sales to silver."""
    with up(data) as server, server.client() as client:
        edge, other = server.token("pi-05"), server.token("test-01")
        first = client.post(
            POST,
            content=b'{"store_id":"102","peso_value":150.50}',
            headers=bearer(other, x_device_id="test-01", Content_Type="application/json"),
        )
        second = client.post(
            POST, content=JSONL, headers=bearer(edge, x_device_id="pi-05", Content_Type="application/jsonl")
        )
        third = client.post(
            "/storage/v1/object/scout-ingest/2026-01-20/pi-05/data.jsonl",
            content=JSONL + b'{"transaction_id":"a3","store_id":"102","peso_value":4}\n',
            headers=bearer(edge, Content_Type="application/octet-stream"),
        )
        fourth = client.post(
            "/load-bronze-from-storage",
            content=b'{"date":"2026-01-20"}',
            headers=bearer(server.service_token(), Content_Type="application/x-www-form-urlencoded"),
        )

        assert [answer.status_code for answer in (first, second, third, fourth)] == [200] * 4
        poll(lambda: ask(data, "select count(*) from scout.silver_transactions") == [(4,)])
        assert ask(data, "select count(*) from scout_bronze.transactions_raw") == [(4,)]
        assert client.get("/healthz").status_code == 200


def test_an_object_that_nobody_asks_to_load_is_loaded(data: Path):
    """An object that nobody asks to load is loaded."""
    with up(data) as server, server.client() as client:
        client.post(
            "/storage/v1/object/scout-ingest/2000-01-01/pi-05/undated.jsonl",
            content=JSONL,
            headers=bearer(server.token()),
        )
        server.end()
    with up(data):
        poll(lambda: ask(data, "select count(*) from scout.silver_transactions") == [(2,)])


def test_after_kill_9_everything_acknowledged_is_there(data: Path):
    """After kill 9 everything acknowledged is there."""
    acknowledged = []
    with up(data) as server:
        headers = bearer(server.token())
        dead = threading.Timer(0.7, server.process.kill)
        with server.client() as client:
            dead.start()
            try:
                for number in range(100_000):
                    client.post(POST, content=b'{"transaction_id":"t%d"}' % number, headers=headers).raise_for_status()
                    acknowledged.append(f"t{number}")
            except httpx.TransportError:
                pass
        assert server.process.wait(DEADLINE_S) == -signal.SIGKILL

    with up(data) as server:
        found = transaction_ids(data)
        assert acknowledged
        assert set(acknowledged) <= found
        assert len(found) <= len(acknowledged) + 1
        with server.client() as client:
            assert client.post(POST, content=b'{"a":1}', headers=headers).status_code == 200


def test_a_killed_postgres_is_started_again_and_nothing_acknowledged_is_lost(data: Path):
    """A killed PostgreSQL is started again and nothing acknowledged is lost."""
    with up(data) as server, server.client() as client:
        headers = bearer(server.token())
        acknowledged = []
        for kill_before in (10, 30):
            while len(acknowledged) < kill_before:
                name = f"t{kill_before}-{len(acknowledged)}"
                answer = client.post(POST, content=b'{"transaction_id":"%s"}' % name.encode(), headers=headers)
                # It may also wait until PostgreSQL is back, which takes about a second.
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    acknowledged.append(name)
            postmaster = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGKILL)

        poll(lambda: sum("postgres_died" in line for line in server.output) == 2)
        poll(lambda: set(acknowledged) <= transaction_ids(data))
        poll(lambda: client.get("/healthz").status_code == 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order_when_asked(data: Path, number: signal.Signals):
    """It stops in order when asked."""
    with up(data) as server:
        assert server.end(number) == 0
    assert not (data / "postgres" / "postmaster.pid").exists()


def test_a_command_that_comes_while_it_starts_waits_for_it(data: Path):
    """From a folder that was only just made on, as an installation leaves it: no moment is too early."""
    data.mkdir()
    environment = CLEAN | {"SCOUT_DATA": str(data)}
    early = subprocess.Popen([*PROGRAM, "tokens", "issue", "--name", "pi-05"], env=environment, stdout=subprocess.PIPE)
    with up(data) as server, server.client() as client:
        output, _ = early.communicate(timeout=DEADLINE_S)
        answer = client.post(POST, content=b'{"a":1}', headers=bearer(output.decode().strip()))

    assert early.returncode == 0
    assert answer.status_code == 200


def test_a_second_one_on_the_same_directory_says_who_holds_it(data: Path):
    """A second one on the same directory says who holds it."""
    with up(data) as server:
        second = scout_server("up", "--data", data, "--listen", "127.0.0.1:0")

        assert second.returncode == 1
        assert f"process {server.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_taken_address_is_named(data: Path):
    """A taken address is named."""
    with up(data) as server:
        address = server.base_url.removeprefix("http://")
        second = scout_server("up", "--data", data.with_name("other"), "--listen", address)

    assert second.returncode == 1
    assert address.rpartition(":")[2] in second.stderr
    assert "--listen" in second.stderr


def test_a_lost_secret_stops_the_next_start_and_the_given_one_mends_it(data: Path):
    """A lost secret stops the next start and the given one mends it."""
    with up(data) as server:
        server.token()
        server.end()
    path = data / "secrets" / "jwt-secret"
    secret = path.read_text().strip()
    path.unlink()

    refused = scout_server("up", "--data", data, "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert "backup" in refused.stderr
    with up(data, SUPABASE_JWT_SECRET=secret) as server:
        assert "SUPABASE_JWT_SECRET" in "".join(server.output)


def test_after_a_change_of_secret_what_the_one_before_signed_counts_and_new_tokens_are_of_the_new(data: Path):
    """From the next start on; until then the running server's secret is not mistaken for the new one."""
    with up(data) as server:
        old = server.token()
        changed = scout_server("tokens", "change-secret", "--data", data, "--yes")
        too_soon = scout_server("tokens", "issue", "--data", data, "--name", "pi-05")
        server.end()
    with up(data) as server, server.client() as client:
        tokens = [old, server.token()]
        answers = [client.post(POST, content=b'{"a":1}', headers=bearer(token)).status_code for token in tokens]
        loaded = client.post("/load-bronze-from-storage", content=b"{}", headers=bearer(server.service_token()))

    assert (changed.returncode, too_soon.returncode) == (0, 1)
    assert "start it again" in too_soon.stderr
    assert (answers, loaded.status_code) == ([200, 200], 200)


def test_nothing_that_it_prints_is_a_secret(data: Path):
    """Nothing that it prints is a secret."""
    with up(data) as server, server.client() as client:
        token = server.token()
        client.post(POST + "?token=in-the-query", content=b'{"a":"a customer"}', headers=bearer(token))
        client.post(POST, content=b'{"a":"a customer"', headers=bearer(token[:-4]))
        secrets = [token, server.service_token(), "in-the-query", "a customer"]
        secrets += [(data / "secrets" / name).read_text().strip() for name in ("jwt-secret", "postgres-password")]
        server.end()
        printed = "".join(server.output)

    assert "request_answered" in printed
    assert [secret for secret in secrets if secret in printed] == []


def test_its_parts_run_against_a_given_database_and_bucket(data: Path, tmp_path: Path):
    """Its parts run against a given database and bucket."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with up(data, SUPABASE_JWT_SECRET="x" * 40) as embedded:
        given = ["--database-url", dsn_of(data)]
        here = ["--bucket", bucket.as_uri()]
        with started("serve", data, *given, *here, SUPABASE_JWT_SECRET="x" * 40) as server, server.client() as client:
            issued = scout_server("tokens", "issue", *given, "--name", "pi-05", SUPABASE_JWT_SECRET="x" * 40)
            uploaded = client.post(
                "/storage/v1/object/scout-ingest/2026-01-20/pi-05/data.jsonl",
                content=JSONL,
                headers=bearer(issued.stdout.strip()),
            )
            assert uploaded.status_code == 200
            assert server.end() == 0
        loaded = scout_server("load", *given, *here, "--date", "2026-01-20", "--json")
        assert '"accepted": 2' in loaded.stdout
        moved = scout_server("etl", *given, "--json")
        assert "silver_transactions" in moved.stdout
        assert ask(data, "select count(*) from scout.silver_transactions") == [(2,)]
        assert embedded.end() == 0
