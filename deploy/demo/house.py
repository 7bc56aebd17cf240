"""A server and shops as real processes, each with its own folder: what the demo and the road tests are made of.

May be relied on: nothing is shared with the programs but their command lines, their files and their databases.
Whoever starts something here stops it with `stop`.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg

PROGRAMS = Path(sys.executable).parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

_CHECKOUT = Path(__file__).resolve().parents[2]
_QUERIES = Path(__file__).resolve().parent / "totals.sql"


class HouseFailed(Exception):
    """A program did not do what it should."""


@dataclass(frozen=True, slots=True)
class Total:
    """What one hop holds."""

    sales: int
    pesos: Decimal

    def __add__(self, other: "Total") -> "Total":
        return Total(self.sales + other.sales, self.pesos + other.pesos)


NOTHING = Total(0, Decimal("0.00"))


class Shop:
    """One till and its agent, with a config, an inbox and a spool of their own."""

    def __init__(
        self, device: str, folder: Path, base_url: str, token: str, *, mode: str = "auto", bucket_url: str = ""
    ) -> None:
        self.device = device
        self.inbox = folder / "inbox"
        self.spool = folder / "spool"
        self.config = folder / "config.toml"
        self.log = folder / "agent.log"
        self.inbox.mkdir(parents=True)
        self.spool.mkdir()
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        self.config.write_text(
            f'[device]\nid = "{device}"\n'
            f'[server]\nbase_url = "{base_url}"\nbucket_url = "{bucket_url}"\ntoken_file = "{token_file}"\n'
            f'[folder]\npath = "{self.inbox}"\nsettle_s = 0.5\n'
            f'[spool]\ndirectory = "{self.spool}"\n'
            "[batch]\nrows_max = 200\nage_max_s = 1.0\n"
            f'[upload]\nmode = "{mode}"\nretry_wait_max_s = 2.0\nconnect_timeout_s = 2.0\n'
            "[heartbeat]\ninterval_s = 1.0\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the agent."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "scout-agent", "run", "--config", self.config], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End the agent as a power cut would: without a word."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def drop(self, name: str, content: bytes, *, renamed: bool = False) -> None:
        """Write a file as a till does: in place, or under another name and then renamed."""
        path = self.inbox / (f"{name}.tmp" if renamed else name)
        path.write_bytes(content)
        if renamed:
            path.rename(self.inbox / name)

    def status(self) -> dict[str, Any]:
        """What `scout-agent status --json` says; it answers whether the agent runs or not."""
        answer = subprocess.run(
            [PROGRAMS / "scout-agent", "status", "--json", "--config", self.config],
            capture_output=True,
            check=False,
        )
        seen: dict[str, Any] = json.loads(answer.stdout)
        return seen

    def unsettled(self) -> int:
        """Sales for which this device still answers, and files that it has not finished with."""
        files = [path for path in self.inbox.rglob("*") if path.is_file() and path.parent.name != "rejected"]
        if not (self.spool / "spool.db").exists():
            return 1 + len(files)
        with self._reading() as spool:
            is_made = spool.execute(query("is_made")).fetchone() == (1,)
            rows = spool.execute(query("unsettled")).fetchone()[0] if is_made else 1
        return int(rows) + len(files)

    def spooled(self) -> Total:
        """Every record that the spool took; settled ones are kept for days, so all are still there."""
        with self._reading() as spool:
            return total_of(line for (line,) in spool.execute(query("spooled")))

    def accepted(self) -> Total:
        """Every record in a batch that bucket or endpoint took."""
        with self._reading() as spool:
            return total_of(line for (line,) in spool.execute(query("accepted")))

    def batches(self) -> list[tuple[str, str, str, int]]:
        """Key, sha256, state and copy number of every batch that the spool knows."""
        with self._reading() as spool:
            return list(spool.execute(query("batches")))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        spool = sqlite3.connect(f"file:{self.spool}/spool.db?mode=ro", uri=True, timeout=30)
        try:
            yield spool
        finally:
            spool.close()


class Server:
    """`scout-server up` with one data directory, on one port for all its lives."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.data = folder / "data"
        self.log = folder / "server.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises HouseFailed with the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(PROGRAMS / "scout-server", "up", "--data", self.data, "--listen", f"127.0.0.1:{self.port}"),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        process = self.process

        def answers() -> bool:
            if process.poll() is not None:
                raise HouseFailed(f"the server ended while starting; it says:\n{tail(self.log)}")
            try:
                return httpx.get(f"{self.base_url}/healthz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, START_TIMEOUT_S, lambda: f"the server did not start; it says:\n{tail(self.log)}")

    def kill(self) -> None:
        """End it as a power cut would. Its PostgreSQL stays behind, for the next start to deal with."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def command(self, *words: str) -> str:
        """Run another scout-server command against this one's data; return what it prints."""
        answer = subprocess.run(
            [PROGRAMS / "scout-server", *words, "--data", self.data], capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise HouseFailed(f"scout-server {words[0]} failed: {answer.stderr.strip()}")
        return answer.stdout.strip()

    def token_for(self, device: str) -> str:
        """A token for a device, which becomes known by it."""
        return self.command("tokens", "issue", "--name", device, "--days", "30")

    def row(self, name: str) -> tuple[Any, ...]:
        """The one row of one of totals.sql's queries against the warehouse."""
        with psycopg.connect(self.command("dsn"), autocommit=True) as connection:
            row = connection.execute(query(name).encode()).fetchone()
        if row is None:
            raise HouseFailed(f"query {name} gave no row")
        return row


def wait_until_drained(server: Server, shops: Sequence[Shop], timeout_s: float, seen: Callable[[int], None]) -> None:
    """Wait until every shop is settled and no load waits for the ETL; tell `seen` how many sales are open."""

    def drained() -> bool:
        open_rows = sum(shop.unsettled() for shop in shops)
        seen(open_rows)
        return not open_rows and server.row("loads_due") == (0,)

    def complaint() -> str:
        logs = "\n".join(f"{shop.device}:\n{tail(shop.log)}" for shop in shops)
        return f"not drained in {timeout_s:.0f} s\n{logs}\nserver:\n{tail(server.log)}"

    wait_for(drained, timeout_s, complaint)


def wait_for(happened: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> None:
    """Poll until something happened; raise HouseFailed with the complaint when it doesn't in time."""
    pause, deadline = threading.Event(), monotonic() + timeout_s
    while not happened():
        if monotonic() >= deadline:
            raise HouseFailed(complaint())
        pause.wait(0.1)


def stop(processes: Iterable[subprocess.Popen[bytes] | None]) -> None:
    """End what still runs, politely and then not."""
    running = [process for process in processes if process is not None and process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def new_folder() -> Path:
    """A folder in the checkout, or, where PostgreSQL's account can't come by, a temporary one.

    PostgreSQL refuses to run as root, and an unprivileged account can't enter a closed home.
    """
    closed = os.geteuid() == 0 and not all(path.stat().st_mode & 0o001 for path in (_CHECKOUT, *_CHECKOUT.parents))
    folder = Path(tempfile.mkdtemp(prefix=".road-", dir=None if closed else _CHECKOUT))
    folder.chmod(0o711)
    return folder


def total_of(lines: Iterable[str | bytes]) -> Total:
    """Count and sum sales given as text, bare or as a spool's lines, exactly."""
    sales, pesos = 0, NOTHING.pesos
    for line in lines:
        sale = json.loads(line, parse_float=Decimal)
        sales, pesos = sales + 1, pesos + Decimal(sale.get("payload", sale)["peso_value"])
    return Total(sales, pesos)


def query(name: str) -> str:
    """One query of totals.sql, by the name above it."""
    blocks = _QUERIES.read_text().split("-- name: ")
    return next(block.partition("\n")[2].strip() for block in blocks if block.startswith(f"{name}\n"))


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
