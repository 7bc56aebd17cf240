"""Posts sales at a given rate, in a process of its own, and says what became of each.

    python bench/load_generator.py --url URL --tokens FILE --rate 200 --seconds 10 --connections 64

Sale number n is due at n / rate, whatever became of those before it, and its latency counts from then: a server that
stalls delays the answers to all that came due meanwhile, and all of them are counted. With `--rate 0` each connection
posts as soon as it was answered: that finds what the server can take. A sale that is due while every connection waits
is sent when one is free; what is not sent by the end is not sent at all, and counted.

Prints one JSON object: `answers`, a list of [number, status, latency in ms, Retry-After or null], status 0 where the
connection broke, and `unsent`. Sale n has the transaction_id `NAME-n`.
"""

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

import uvloop

ANSWERED_WITHIN_S = 60.0
SALE = (
    '{"transaction_id":"%s-%d","store_id":"102","peso_value":150.50,"payment_method":"cash","items":['
    '{"sku":"4800016644931","name":"Instant noodles","quantity":2,"price":15.25},'
    '{"sku":"4807770270055","name":"Soap","quantity":1,"price":120.00}]}'
)


class Connection(asyncio.Protocol):
    """One connection, with one request at a time. `on_answer` gets status, Retry-After and whether it lives on."""

    def __init__(self, on_answer: Callable[["Connection", int, int | None, bool], None]) -> None:
        self._on_answer = on_answer
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.number = -1  # of the sale under way
        self.due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, number: int, due_s: float) -> None:
        """Send a request."""
        assert self._transport
        self.number, self.due_s, self._received = number, due_s, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take the answer once all of it is here."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return
        wait_s = headers.get(b"retry-after")
        lives = headers.get(b"connection") != b"close"
        if not lives and self._transport:
            self._transport.close()
        self._answered(int(head[9:12]), int(wait_s) if wait_s else None, lives=lives)

    def connection_lost(self, _: Exception | None) -> None:
        """Report the request that was under way."""
        self._transport = None
        self._answered(0, None, lives=False)

    def _answered(self, status: int, wait_s: int | None, *, lives: bool) -> None:
        if self.number >= 0:
            self._on_answer(self, status, wait_s, lives)


class Generator:
    """Sends what is due, and notes the answers."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._tokens = asked.tokens.read_text().split()
        self._host = urlsplit(asked.url)
        self._idle: list[Connection] = []
        self._opened = 0
        self._backlog: deque[tuple[int, float]] = deque()
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._next = 0
        self._ends_s = 0.0
        self._opening: set[asyncio.Task[None]] = set()
        self.answers: list[tuple[int, int, float, int | None]] = []

    async def run(self) -> None:
        """Send for as long as asked, then wait for the last answers."""
        begins_s = monotonic()
        self._ends_s = begins_s + self._asked.seconds
        if self._asked.rate:
            for number in range(round(self._asked.rate * self._asked.seconds)):
                due_s = begins_s + number / self._asked.rate
                if due_s > monotonic():
                    await asyncio.sleep(due_s - monotonic())
                self._due(number, due_s)
            self._next = number + 1
        else:
            for _ in range(self._asked.connections):
                self._due(*self._take_number())
            await asyncio.sleep(self._asked.seconds)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            await self._quiet.wait()

    @property
    def unsent(self) -> int:
        """How many came due and were never sent."""
        return len(self._backlog)

    def _take_number(self) -> tuple[int, float]:
        number, self._next = self._next, self._next + 1
        return number, monotonic()

    def _due(self, number: int, due_s: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, number, due_s)
                return
            self._opened -= 1
        if self._opened < self._asked.connections:
            self._opened += 1
            self._start()
            opening = asyncio.ensure_future(self._open(number, due_s))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        else:
            self._backlog.append((number, due_s))

    async def _open(self, number: int, due_s: float) -> None:
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._answered), self._host.hostname, self._host.port
            )
        except OSError:
            connection = Connection(self._answered)
            connection.number, connection.due_s = number, due_s
            self._answered(connection, 0, None, lives=False)
            return
        self._send(connection, number, due_s)
        self._end()

    def _send(self, connection: Connection, number: int, due_s: float) -> None:
        self._start()
        body = SALE % (self._asked.name, number)
        token = self._tokens[number % len(self._tokens)]
        request = (
            f"POST /ingest-transaction HTTP/1.1\r\nHost: {self._host.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        if self._asked.get:
            request = f"GET {self._asked.get} HTTP/1.1\r\nHost: {self._host.netloc}\r\n\r\n"
        connection.send(request.encode(), number, due_s)

    def _answered(self, connection: Connection, status: int, wait_s: int | None, lives: bool) -> None:
        now_s = monotonic()
        self.answers.append((connection.number, status, round((now_s - connection.due_s) * 1000, 2), wait_s))
        connection.number = -1
        if lives:
            self._idle.append(connection)
        else:
            self._opened -= 1
        if now_s < self._ends_s:
            if self._backlog:
                self._due(*self._backlog.popleft())
            elif not self._asked.rate:
                self._due(*self._take_number())
        self._end()

    def _start(self) -> None:
        self._under_way += 1
        self._quiet.clear()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()


async def _generate(asked: argparse.Namespace) -> Generator:
    generator = Generator(asked)
    await generator.run()
    return generator


def main() -> None:
    """Read the command line, post, print."""
    parser = argparse.ArgumentParser(description="Posts sales at a given rate and says what became of each.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--tokens", required=True, type=Path, help="a file with a token on each line")
    parser.add_argument("--rate", type=float, default=0.0, help="sales a second; 0: as soon as the last was answered")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--name", default="sale", help="the transaction_ids begin with this")
    parser.add_argument("--get", default="", help="GET this path instead of posting sales")
    generator = uvloop.run(_generate(parser.parse_args()))
    json.dump({"answers": generator.answers, "unsent": generator.unsent}, sys.stdout)


if __name__ == "__main__":
    main()
