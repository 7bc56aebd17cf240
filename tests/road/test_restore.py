"""A database that was restored from a backup: what it lacks comes again, and every count is as before."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import psycopg
import pytest
from house import PROGRAMS, Server, Shop, stop, tail, wait_for
from psycopg.conninfo import make_conninfo
from sales import sales

COUNTS = """
    select
        (select count(*) from scout_bronze.transactions_raw),
        (select count(distinct (device_id, epoch, seq)) from scout_bronze.transactions_raw),
        (select count(*) from scout.silver_transactions),
        (select sum(peso_value) from scout.silver_transactions)
"""

LATER = """
    update scout_edge.awaited
    set asked_at = asked_at - interval '2 minutes', checked_at = checked_at - interval '2 minutes'
"""


class BackOffice:
    """The pieces beside a database that can be backed up and restored, as an operator does it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._admin = server.command("dsn")
        self.dsn = make_conninfo(self._admin, dbname="office")
        self.folder = folder
        (folder / "bucket").mkdir()
        secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
        self._pieces = os.environ | {
            "DATABASE_URL": self.dsn,
            "SCOUT_BUCKET": (folder / "bucket").as_uri(),
            "SUPABASE_JWT_SECRET": secret,
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self._listen}"
        self.sql("create database office")
        self.run("migrate")

    def sql(self, statement: str) -> None:
        """Do what only who owns the cluster may."""
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement.encode())

    def run(self, *words: str) -> str:
        """Run a command to its end."""
        done = subprocess.run(
            [PROGRAMS / "scout-server", *words], env=self._pieces, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer devices."""
        log = self.folder / "serve.log"
        with log.open("ab") as errors:
            command = [PROGRAMS / "scout-server", "serve", "--listen", self._listen]
            process = subprocess.Popen(command, env=self._pieces, stdout=errors, stderr=errors)
        try:
            wait_for(self._answers, 30, lambda: f"serve did not answer:\n{tail(log)}")
            yield
        finally:
            stop([process])

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def load(self) -> None:
        """Load as cron does, a minute later: what a device awaits may only then be called absent."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(LATER)
        self.run("load")

    def counts(self) -> tuple[object, ...]:
        """What bronze and silver hold."""
        self.run("etl")
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(COUNTS).fetchone()
        assert row is not None
        return row


@pytest.mark.parametrize("mode", ["bucket", "endpoint"])
def test_what_a_restored_database_lacks_comes_again(server: Server, road_folder: Path, mode: str) -> None:
    """By both paths, though the devices had their receipts: bronze and silver are as they were before the loss."""
    office = BackOffice(server, road_folder)
    token = office.run("tokens", "issue", "--name", "pi-05")
    shop = Shop("pi-05", road_folder / "pi-05", office.url, token, mode=mode)
    made = sales(80, seed=4)

    def sell_and_settle(name: str) -> None:
        shop.drop(name, b"[" + b",".join(islice(made, 40)) + b"]", renamed=True)
        wait_for(lambda: shop.unsettled() == 40, 30, lambda: f"not taken:\n{tail(shop.log)}")
        settle()

    def settle() -> None:
        def settled() -> bool:
            office.load()
            return shop.unsettled() == 0

        wait_for(settled, 60, lambda: f"not settled:\n{tail(shop.log)}")

    try:
        shop.start()
        with office.serving():
            sell_and_settle("before.json")
        office.sql("create database backup template office")
        with office.serving():
            sell_and_settle("after.json")
        before = office.counts()
        office.sql("drop database office")
        office.sql("alter database backup rename to office")
        restored = office.counts()
        office.run("after-restore", "--yes")
        with office.serving():
            wait_for(lambda: shop.unsettled() > 0, 60, lambda: f"nothing was awaited again:\n{tail(shop.log)}")
            settle()
            status = office.run("status")
    finally:
        stop([shop.process])

    assert before[:3] == (80, 80, 80)
    assert restored[:3] == (40, 40, 40)
    assert office.counts() == before
    assert status.splitlines()[1].split()[:2] == ["pi-05", "80"]
