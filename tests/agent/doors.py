"""What tests of the local HTTP source share: a running one on a real spool, and raw requests."""

import json
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from agent_kit import BUILT_ON, NOW, open_spool
from fakes import FakeClock

from agent.clock import SystemClock
from agent.config import LocalHttp
from agent.counters import Counters
from agent.intake import Note
from agent.sources.local_http import LocalHttpSource
from agent.spool import Spool
from wire.receipt import IngestAnswer

URL = "/ingest-transaction"
ANSWER_WITHIN_S = 20.0
NO_CERTIFICATES = ssl.create_default_context()
"""Made once: httpx reads all certificates for every client without one, which takes longer than most tests."""


class WatchedSpool(Spool):
    """A spool that counts its commits and may be told to fail or to wait first."""

    commits = 0
    before: Callable[[Sequence[bytes]], None] = staticmethod(lambda _payloads: None)

    def append(self, payloads: Sequence[bytes], notes: Sequence[Note] = ()) -> int:
        """Append as the spool does."""
        self.before(payloads)
        rows = super().append(payloads, notes)
        self.commits += bool(payloads or notes)
        return rows


@dataclass
class RunningDoor:
    """The source at work."""

    source: LocalHttpSource
    spool: WatchedSpool
    counters: Counters
    tallied: list[tuple[int, int]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where it listens on TCP."""
        return f"http://{self.source.addresses[0]}"

    @property
    def address(self) -> tuple[str, int]:
        """The same for a raw socket."""
        host, _, port = self.source.addresses[0].rpartition(":")
        return host.strip("[]"), int(port)

    def post(self, content: Any, **headers: str) -> httpx.Response:
        """Post a body; keyword arguments become headers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.base_url + URL
        return httpx.post(url, content=content, headers=named, timeout=ANSWER_WITHIN_S, verify=NO_CERTIFICATES)

    def get(self, path: str) -> httpx.Response:
        """Get a page."""
        return httpx.get(self.base_url + path, timeout=ANSWER_WITHIN_S, verify=NO_CERTIFICATES)

    def stored(self) -> list[str]:
        """Every payload in the spool, in its order; over a connection of its own, for the committer is at work."""
        with closing(open_spool(self.spool._path, FakeClock())) as spool:
            return stored_payloads(spool)

    def raw(self, *pieces: bytes, half_close: bool = False) -> bytes:
        """Send bytes as they are on a connection of their own; return all that is answered until it closes."""
        with socket.create_connection(self.address, ANSWER_WITHIN_S) as line:
            for piece in pieces:
                line.sendall(piece)
            if half_close:
                line.shutdown(socket.SHUT_WR)
            return read_to_end(line)


@contextmanager
def a_door(
    home: Path, clock: FakeClock | SystemClock | None = None, *, listen_again_s: float = 0.05, **limits: Any
) -> Iterator[RunningDoor]:
    """Run the source on a port of the system's choice, with real time unless a clock is given."""
    spool = WatchedSpool(home / "spool.db", "pi-05", clock=(clock or SystemClock()), rng=random.SystemRandom())
    counters, tallied = Counters(), []
    source = LocalHttpSource(
        LocalHttp(**({"listen": "127.0.0.1:0"} | limits)),
        spool,
        lambda: b"",
        counters=counters,
        wake=lambda: None,
        clock=clock or SystemClock(),
        tally=lambda taken, refused: tallied.append((taken, refused)),
        listen_again_s=listen_again_s,
    )
    source.start()
    try:
        yield RunningDoor(source, spool, counters, tallied)
    finally:
        source.close()
        spool.close()


def stored_payloads(spool: Spool) -> list[str]:
    """Every payload in the spool, in its order, from the bytes that travel."""
    spool.seal(NOW, BUILT_ON)
    payloads: list[str] = []
    while batch := spool.next_waiting():
        payloads += [line.partition(b'"payload":')[2][:-1].decode() for line in spool.body(batch).splitlines()]
        spool.accept(batch, "test")
    return payloads


def counts(response: httpx.Response) -> tuple[int, int, int]:
    """How many lines were accepted, duplicates and rejected."""
    assert response.status_code == 200, response.text
    answer = IngestAnswer.parse(response.content)
    return answer.accepted, answer.duplicates, len(answer.rejected)


def request(body: bytes = b"", *headers: str, method: str = "POST", path: str = URL, host: str = "localhost") -> bytes:
    """A request as a simple client writes it, with a Content-Length unless the headers say otherwise."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


def read_to_end(line: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    answer = bytearray()
    while piece := line.recv(65536):
        answer += piece
    return bytes(answer)


def threads_of_clients() -> list[int]:
    """How many connections are served now, looked at twice."""
    return [sum(thread.name == "local-http-client" for thread in threading.enumerate()) for _ in range(2)]


def statuses(answers: bytes) -> list[int]:
    """The statuses of all answers on a connection, interim ones included."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def last_answer(answers: bytes) -> tuple[int, dict[str, Any]]:
    """Status and fields of the last answer on a connection."""
    return statuses(answers)[-1], json.loads(answers.rpartition(b"\r\n\r\n")[2])
