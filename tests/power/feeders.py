"""Where sales come from in a power-cut run: one small class for each source.

Each says what the config needs, feeds from its own thread until the power goes, and notes what its source promises
to keep. A promise is noted when the other side of it could first rely on it, and never later:

    folder       the till flushed the file and its folder: from then on a sale is in a file or in the spool
    add          the command said that it stored the sales
    tail         the till flushed the line
    local HTTP   the answer was 2xx
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent_kit import sale
from card import write_durably

TESTS = Path(__file__).resolve().parents[1]
PAUSE_S = 0.003
SALES_AT_ONCE_MAX = 20


class Ledger:
    """Which numbers were given to whom, and what was promised for which, kept outside of the card.

    A cut takes some milliseconds, and within them the kernel may let a flush succeed whose journal entry it has
    given up already (so it does for a bare write and fdatasync). What is noted from the beginning of a cut on is
    therefore no promise: real power doesn't go in two steps.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_power = False
        self.given = 0
        self.promised: dict[str, set[int]] = {}

    def take(self, count: int) -> list[int]:
        """New numbers that nobody else has."""
        with self._lock:
            first, self.given = self.given, self.given + count
        return list(range(first, first + count))

    def promise(self, source: str, numbers: Sequence[int]) -> None:
        """Note that a source answers for these from now on, if there is power."""
        with self._lock:
            if self._has_power:
                self.promised.setdefault(source, set()).update(numbers)

    def power(self, *, is_on: bool) -> None:
        """Note that a life begins, or that the cut begins."""
        with self._lock:
            self._has_power = is_on


class Feeder(Protocol):
    """A source's other side."""

    name: str

    def sections(self) -> dict[str, dict[str, object]]:
        """What the config needs for this source."""

    def feed(self, ledger: Ledger, stop: threading.Event) -> None:
        """Feed until `stop`, or until the card fails with OSError."""


class FolderFeeder:
    """A till that drops files."""

    name = "folder"

    def __init__(self, card: Path) -> None:
        self._folder = card / "sales"

    def sections(self) -> dict[str, dict[str, object]]:
        """The folder is on the card."""
        return {"folder": {"path": str(self._folder), "settle_s": 0.1}}

    def feed(self, ledger: Ledger, stop: threading.Event) -> None:
        """Drop files of one sale up to some."""
        self._folder.mkdir(exist_ok=True)
        while not stop.wait(PAUSE_S):
            numbers = ledger.take(1 + ledger.given % SALES_AT_ONCE_MAX)
            write_durably(self._folder / f"{numbers[0]}.jsonl", _lines(numbers))
            ledger.promise(self.name, numbers)


class AddFeeder:
    """Somebody who calls `scout-agent add`, again and again, beside the daemon."""

    name = "add"

    def __init__(self, config: Path, variables: Mapping[str, str]) -> None:
        self._config = config
        self._variables = dict(variables)

    def sections(self) -> dict[str, dict[str, object]]:
        """Nothing: it needs only the spool."""
        return {}

    def feed(self, ledger: Ledger, stop: threading.Event) -> None:
        """Keep one process that stores what it is given; its answers come through a pipe, not through the card."""
        command = [sys.executable, str(TESTS / "power" / "adder.py"), str(self._config)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._variables
        )
        ended = threading.Thread(target=lambda: (stop.wait(), process.kill()))
        ended.start()
        try:
            with process:
                while True:
                    numbers = ledger.take(1 + ledger.given % 3)
                    process.stdin.write(json.dumps(numbers).encode() + b"\n")
                    process.stdin.flush()
                    if process.stdout.readline() != b"stored\n":
                        raise BrokenPipeError("add stored nothing")
                    ledger.promise(self.name, numbers)
        finally:
            ended.join()


class TailFeeder:
    """A till that appends to one file."""

    name = "tail"

    def __init__(self, card: Path) -> None:
        self._folder = card / "till"

    def sections(self) -> dict[str, dict[str, object]]:
        """The file is on the card."""
        return {"tail": {"path": str(self._folder)}}

    def feed(self, ledger: Ledger, stop: threading.Event) -> None:
        """Append some lines at a time. What a cut left of a line is ended first, so that it spoils no other."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "till.jsonl").open("a+b") as file:
            file.write(b"\n")
            while not stop.wait(PAUSE_S):
                numbers = ledger.take(1 + ledger.given % SALES_AT_ONCE_MAX)
                file.write(_lines(numbers))
                file.flush()
                os.fsync(file.fileno())
                ledger.promise(self.name, numbers)


class LocalHttpFeeder:
    """A till that posts to the agent."""

    name = "local_http"
    path = "/ingest-transaction"

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    def sections(self) -> dict[str, dict[str, object]]:
        """It listens on a port that was free."""
        return {"local_http": {"listen": f"127.0.0.1:{self._port}"}}

    def feed(self, ledger: Ledger, stop: threading.Event) -> None:
        """Post one sale up to some; only an answer of 2xx is a promise."""
        while not stop.wait(PAUSE_S):
            numbers = ledger.take(1 + ledger.given % 5)
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("POST", self.path, _lines(numbers), {"Content-Type": "application/jsonl"})
                answer = connection.getresponse()
                answer.read()
                if 200 <= answer.status < 300:
                    ledger.promise(self.name, numbers)
            except (ConnectionError, http.client.HTTPException, TimeoutError):
                continue  # not promised: the till would send it again
            finally:
                connection.close()


def _lines(numbers: Sequence[int]) -> bytes:
    return b"".join(sale(number) + b"\n" for number in numbers)
