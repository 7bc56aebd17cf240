"""The house in which the documented commands run: a real server, a real agent, and what the reader's names mean there.

    page ─▶ Play ─▶ a shell for each block, with the reader's names replaced by the house's
                    what it printed, with the house's names replaced by the reader's

May be relied on: a page begins with the device pi-05 let in, its agent running, and SOLD sales of it in gold. A page
that changes more than it mends says `<!-- house: own device -->`, or, of the server, `<!-- house: own -->`.
"""

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from counters import DEADLINE_S, Counter, House, free_port
from house import PROGRAMS, Server, Shop, stop, tail, wait_for
from pages import Block, Direction

from agent import VERSION
from agent.clock import SystemClock
from agent.status import status_of

SOLD = 40
SERVER_UNIT, AGENT_UNIT = "scout-server", "scout-agent"
_PROGRAMS = Path(__file__).with_name("programs")
_STAND_INS = Path(__file__).with_name("stand_ins")
_PROMISED = {
    # What a reader copies from what was printed before: its name, and how it is found there.
    "CODE": r"^code for \S+: (\S+)$",
    "EPOCH": r"\b([0-9a-f]{16})\b",
    "TOKEN_ID": r"\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b",
    "NUMBER": r"^ *([1-9][0-9]*)\b",
    "FIRST-LAST": r" ([0-9]+-[0-9]+)\b",
}


class Play:
    """A device in a house. `run` and `direct` a page's steps in order; `end` after each page, `close` at last."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.seed = next(house.numbers)
        self.folder = house.folder / f"shop-{self.seed}"
        self.folder.mkdir()
        self.device = f"pi-{self.seed:02}"
        self.shop = Counter(self.device, self.folder / self.device, house.server)
        self.config_at_first = self.shop.config.read_text()
        self.seeds = count(1000 * self.seed)
        self.going_on: list[subprocess.Popen[bytes]] = []
        self.printed = ""
        self.free_port = free_port()
        self.places = {
            name: self.folder / name.strip("/").replace("/", "-") for name in ("/media/stick", "/srv/backup")
        }

    def begin(self) -> None:
        """Let the device in, and have its first sales in gold."""
        for place in self.places.values():
            place.mkdir()
        self.shop.enrol()
        self.shop.start()
        self.sell(SOLD)
        self.shop.wait_until_settled()
        self.wait_for_gold()

    def wait_for_gold(self) -> None:
        """Wait until no load waits for the ETL."""
        server = self.house.server
        wait_for(lambda: server.row("loads_due") == (0,), DEADLINE_S, lambda: f"not in gold:\n{tail(server.log)}")

    def sell(self, number: int) -> None:
        """Sell so much more, until it is in the spool."""
        seed = next(self.seeds)
        self.shop.sell(number, seed, f"{seed}.json")

    def agent(self, *words: str) -> None:
        """Run a command of the agent's on this device."""
        subprocess.run(
            [PROGRAMS / "scout-agent", *words, "--config", self.shop.config], check=True, capture_output=True
        )

    def reconfigure(self, before: str, after: str) -> None:
        """Edit the config; the running agent takes it over."""
        config = self.shop.config.read_text()
        assert before in config
        self.shop.config.write_text(config.replace(before, after))

    def has_problem(self, code: str) -> bool:
        """Whether `scout-agent status` tells of this."""
        status = self.shop.status()
        return code in {problem["code"] for problem in (*status["broken"], *status["attention"])}

    def fault_kind(self, config: Path) -> str | None:
        """What stood in the way of delivery last, by its kind."""
        fault = status_of(config, clock=SystemClock(), version=VERSION).status.last_fault
        return fault.kind if fault else None

    def ask(self, question: str, *parameters: str) -> Any:
        """The one value that answers a question to the warehouse."""
        with psycopg.connect(self.house.server.dsn(), autocommit=True) as connection:
            row = connection.execute(question.encode(), parameters or None).fetchone()
        assert row
        return row[0]

    def do(self, statement: str, *parameters: str) -> None:
        """Change something in the warehouse."""
        with psycopg.connect(self.house.server.dsn(), autocommit=True) as connection:
            connection.execute(statement.encode(), parameters or None)

    def wait_until_reported(self) -> None:
        """Wait until the device has told the server of every sale in its spool."""
        spooled = self.shop.spooled().sales
        heads = "select coalesce(sum(head), 0) from scout_edge.heads where device_id = %s"
        self.shop.wait_for(lambda: self.ask(heads, self.device) >= spooled, "the sales were not reported")

    def names(self) -> dict[str, str]:
        """What the reader's names are here."""
        server, shop = self.house.server, self.shop
        return {
            "https://sales.example.com": server.base_url,
            "http://127.0.0.1:8700": server.base_url,
            "http://127.0.0.1:8710": f"http://{shop.address}",
            "127.0.0.1:8701": f"127.0.0.1:{self.free_port}",
            "/var/lib/scout-server": str(server.data),
            "/etc/scout-agent/config.toml": str(shop.config),
            "/var/lib/till/sales": str(shop.inbox),
            "/var/log/till": str(shop.log_folder),
            "/var/lib/scout-agent": str(shop.spool),
            "postgresql://postgres:PASSWORD@db.PROJECT.supabase.co:5432/postgres": self.project(),
            ".venv/bin/": f"{PROGRAMS}/",
            "pi-05": self.device,
            **{name: str(place) for name, place in self.places.items()},
        }

    def project(self) -> str:
        """A database beside the server's own."""
        return urlsplit(self.house.server.dsn())._replace(path="/project").geturl()

    def here(self, text: str) -> str:
        """A text with the house's names."""
        for name, found in self._promised().items():
            text = re.sub(rf"\b{name}\b", found, text)
        return _replaced(text, self.names())

    def there(self, text: str) -> str:
        """A text with the reader's names."""
        names = {found: name for name, found in reversed(self.names().items())}
        return _replaced(text, names)

    def run(self, block: Block) -> str:
        """Run a block; return what it printed, in the reader's names. Raises AssertionError when it ends otherwise."""
        if block.language == "sql":
            return self._ask(block)
        if block.until:
            return self._run_on(block)
        command = [sys.executable, "-I", "-"] if block.language == "python" else ["sh", "-eu"]
        done = subprocess.run(
            command,
            input=self.here(block.text),
            env=self._environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        printed = self.there("".join(line for line in done.stdout.splitlines(keepends=True) if not _is_log(line)))
        self.printed = printed + self.printed
        assert done.returncode == block.exit_status, f"{block} ended with {done.returncode}:\n{block.text}\n{printed}"
        return printed

    def direct(self, direction: Direction, directions: Mapping[str, Callable[["Play"], None]]) -> None:
        """Let something happen."""
        assert direction.words in directions, f"{direction.page}:{direction.line}: nobody can play {direction.words!r}"
        directions[direction.words](self)

    def end(self) -> None:
        """End what a page started."""
        stop(self.going_on)
        self.going_on, self.printed = [], ""

    def close(self) -> None:
        """End everything of this device."""
        stop([self.shop.process, *self.going_on])

    def _promised(self) -> dict[str, str]:
        """What the reader found in what was printed last."""
        found = {name: re.search(pattern, self.printed, re.MULTILINE) for name, pattern in _PROMISED.items()}
        return {name: match[1] for name, match in found.items() if match}

    def _environment(self) -> dict[str, str]:
        mine = {
            "PATH": f"{_PROGRAMS}:{PROGRAMS}:{os.environ['PATH']}:{_STAND_INS}",
            "SCOUT_DATA": str(self.house.server.data),
            "SCOUT_AGENT_CONFIG": str(self.shop.config),
            "SCOUT_WARM": str(self.house.programs),
            "API_KEY": "public",
            "BUCKET_URL": f"{self.house.server.base_url}/storage/v1/object/scout-ingest",
            "SCOUT_HOUSE": str(self.folder / "services"),
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("SCOUT_")} | mine

    def _run_on(self, block: Block) -> str:
        """Start what doesn't end, and wait for its word."""
        log = self.folder / f"{block.line}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-euc", f"exec {self.here(block.text)}"],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.going_on.append(process)
        wait_for(lambda: block.until in log.read_text(), DEADLINE_S, lambda: f"{block}:\n{tail(log)}")
        return self.there(log.read_text())

    def _ask(self, block: Block) -> str:
        """Run SQL as the owner of the warehouse, or as one who may only read gold."""
        role = "set role scout_analyst" if block.place == "analyst" else "select 1"
        with psycopg.connect(self.house.server.dsn(), autocommit=True) as connection:
            connection.execute(role.encode())
            cursor = connection.execute(self.here(block.text).encode())
            lines = [" ".join(column.name for column in cursor.description or ())] if cursor.description else []
            lines += [" ".join(str(value) for value in row) for row in (cursor.fetchall() if lines else ())]
        return self.there("\n".join(lines))


@contextmanager
def a_play(house: House) -> Iterator[Play]:
    """A device that has delivered, and `systemctl ACTION UNIT` for it and the server."""
    play = Play(house)

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            action, *units = self.rfile.readline().decode().split()
            try:
                for unit in units:
                    _obey(play, action, unit.removesuffix(".service"))
            except Exception as error:  # noqa: BLE001  (it is the shell's to report)
                self.wfile.write(f"systemctl {action}: {error}".encode())

    with socketserver.ThreadingUnixStreamServer(str(play.folder / "services"), Answer) as services:
        threading.Thread(target=services.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            play.begin()
            yield play
        finally:
            play.close()
            services.shutdown()


def _obey(play: Play, action: str, unit: str) -> None:
    service: Server | Shop = {SERVER_UNIT: play.house.server, AGENT_UNIT: play.shop}[unit]
    if action in ("stop", "restart"):
        stop([service.process])
    if action in ("start", "restart"):
        service.start()
    assert action in ("start", "stop", "restart"), "only start, stop and restart are played here"


def _is_log(line: str) -> bool:
    """Whether this is an entry of a log, which a terminal shows in another form."""
    return line.startswith("{") and '"event": "' in line


def _replaced(text: str, names: Mapping[str, str]) -> str:
    """Replace all names at once, the longest first."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda match: names[match[0]], text)
