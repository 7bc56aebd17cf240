"""The server and the shops of the documented commands: as the demo's, and in more of a hurry."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import psycopg
from house import Server, Shop, new_folder, query, stop, tail, wait_for
from sales import sales

from agent import VERSION
from agent.clock import SystemClock
from agent.enrolling import enrol_device
from agent.status import status_of
from agent.transport import client_of
from server import fleet
from server.config import now

DEADLINE_S = 60
WARM = Path(__file__).with_name("warm.py")
HURRY = {
    "settle_s = 0.5": "settle_s = 0.1",
    "age_max_s = 1.0": "age_max_s = 0.2",
    "interval_s = 1.0": "interval_s = 0.5",
}


class Counter(Shop):
    """A shop of the house. Its device was enrolled by a code, a till may post to it, and it hurries."""

    def __init__(self, device: str, folder: Path, server: Server) -> None:
        super().__init__(device, folder, server.base_url, "")
        self.address = f"127.0.0.1:{free_port()}"
        config = (
            self.config.read_text()
            .replace("age_max_s = 1.0", "age_max_s = 0.2")
            .replace("settle_s = 0.5", "settle_s = 0.1")
        )
        config = config.replace("interval_s = 1.0", "interval_s = 0.5")
        self.log_folder = folder / "till-log"
        self.log_folder.mkdir()
        self.config.write_text(f'{config}[local_http]\nlisten = "{self.address}"\n[tail]\npath = "{self.log_folder}"\n')
        self.server = server

    def enrol(self) -> None:
        """Let this device in by a code."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            code, _ = fleet.new_code(connection, self.device, timedelta(days=1), now())
        enrol_device(self.config, self.server.base_url, code, clock=SystemClock(), client_of=client_of)

    def start(self) -> None:
        """Start the agent and wait until its status is that of a running one."""
        super().start()
        self.wait_for(lambda: bool((self.status().get("daemon") or {}).get("started_at")), "the agent did not start")

    def sell(self, number: int, seed: int, name: str) -> None:
        """Write a file of so many sales, and wait until the agent took them."""
        self.drop(name, b"[" + b",".join(islice(sales(number, seed), number)) + b"]", renamed=True)
        self.wait_for(lambda: not any(self.inbox.rglob("*.json")), "the sales were not taken")

    def status(self) -> dict[str, Any]:
        """What `scout-agent status --json` says, found out in this process: it is asked often."""
        return status_of(self.config, clock=SystemClock(), version=VERSION).status.to_fields()

    def wait_until_settled(self) -> None:
        """Wait until each sale that was handed over, the till's log included, has its receipt."""
        self.wait_for(self._has_read_the_log, "the till's log was not read")
        self.wait_for(lambda: self.unsettled() == 0, "not settled")

    def _has_read_the_log(self) -> bool:
        logs = [path.stat() for path in self.log_folder.glob("*.jsonl")]
        if not logs:
            return True
        with self._reading() as spool:
            taken = dict(spool.execute("select inode, max(bytes_taken) from tail_marks group by inode").fetchall())
        return all(taken.get(log.st_ino) == log.st_size for log in logs)

    def wait_for(self, happened: Callable[[], bool], complaint: str) -> None:
        """Wait, and show the agent's log if it doesn't happen."""
        wait_for(happened, DEADLINE_S, lambda: f"{complaint}:\n{tail(self.log)}")


class BackOffice(Server):
    """The server, whose address doesn't change while it runs."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        super().start()
        self.address = self.command("dsn")

    def dsn(self) -> str:
        """Where its database is."""
        return self.address

    def row(self, name: str) -> tuple[Any, ...]:
        """The one row of one of totals.sql's queries against the warehouse."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            row = connection.execute(query(name).encode()).fetchone()
        assert row
        return row


@dataclass
class House:
    """One server, and as many shops as pages need. `programs`: where ours wait, loaded, for commands."""

    folder: Path
    server: BackOffice
    programs: Path
    numbers: Iterator[int] = field(default_factory=lambda: count(5))


@contextmanager
def a_house() -> Iterator[House]:
    """A server that answers."""
    folder = new_folder()
    server = BackOffice(folder)
    programs = folder / "warm"
    warm = [
        subprocess.Popen([sys.executable, WARM, module, f"{programs}-{program}"], cwd=folder)
        for program, module in (("scout-server", "server.cli"), ("scout-agent", "agent.cli"))
    ]
    try:
        server.start()
        yield House(folder, server, programs)
    finally:
        stop([server.process, *warm])
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
