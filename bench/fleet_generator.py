"""A fleet of simulated devices in one process, which uploads and calls home over real sockets.

    python bench/fleet_generator.py --url URL --tokens FILE --cookie FILE --plan '{"seed": 1, …}'

Each device does on the wire what the agent does: it uploads what is sealed, by bucket or by endpoint, calls home at
its interval, forgets what is settled, sends again what it is asked for, and comes back when a busy server says.
Duplicates are part of life: some batches go by both roads at once, some twice, and of some the answer is lost. A few
objects arrive damaged, as from a bad disk: the server must ask for those again.

The tills follow from the plan's seed; which road a batch takes, too, but not when the server answers. Prints one JSON
object: what was sold, what was done, and `answers`, a list of [kind, status, latency in ms, Retry-After or null] with
status 0 where the connection broke.
"""

import argparse
import asyncio
import gzip
import random
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import msgspec
import uvloop
from simulated_device import Batch, Plan, SimulatedDevice, Sold

from wire.batch import UNDATED
from wire.heartbeat import SETTLED, UNKNOWN, NotAReply, Reply
from wire.receipt import IngestAnswer, NotAReceipt

ANSWERED_WITHIN_S = 60.0
BUSY = (429, 503)
AFTER_TROUBLE_S = 2.0
PAGE_EVERY_S = 0.5
PAGES = ("/healthz", "/fleet", "/fleet/road")
"""What an operator looks at meanwhile."""

BY_BOTH_SHARE = 0.05
TWICE_SHARE = 0.05
ANSWER_LOST_SHARE = 0.02
DAMAGED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `kind` is what it counts as."""

    kind: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Status 0: the connection broke."""

    status: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def wait_s(self) -> int | None:
        """Retry-After."""
        value = self.headers.get(b"retry-after", b"")
        return int(value) if value.isdigit() else None


@dataclass(slots=True)
class Seen:
    """What became of all of it, for the one who asked for the load."""

    answers: list[tuple[str, int, float, int | None]] = field(default_factory=list)
    did: dict[str, int] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)  # answers that no agent would believe
    sold: Sold = field(default_factory=Sold)
    generations: set[str] = field(default_factory=set)
    settled_after_s: list[float] = field(default_factory=list)  # from acceptance on, of each batch
    unsettled_rows: int = 0
    undone: list[str] = field(default_factory=list)  # devices that had more to say when time was up
    drained_s: float = 0.0

    def note(self, what: str, times: int = 1) -> None:
        """Count what was done."""
        self.did[what] = self.did.get(what, 0) + times


class Line:
    """A connection to the server, opened when there is something to say and again when it broke."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Answer:
        """Send a request and read the answer."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                reader = await self.send(request)
                answer = await _read(reader)
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()
            return Answer(0)
        if answer.headers.get(b"connection") == b"close":
            self.close()
        return answer

    async def send(self, request: Request) -> asyncio.StreamReader:
        """Send a request; return what its answer will come from. Raises OSError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        headers = request.headers | {"Host": f"{self._host}:{self._port}", "Content-Length": str(len(request.body))}
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + request.body)
        await writer.drain()
        return reader

    def close(self) -> None:
        """Hang up."""
        if self._streams:
            self._streams[1].close()
        self._streams = None


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers[b"content-length"]))
    return Answer(int(head[0].split()[1]), headers, body)


class Shop:
    """One device, its line and its token."""

    def __init__(self, device: SimulatedDevice, token: str, fleet: "Fleet") -> None:
        self._device, self._fleet, self._plan = device, fleet, fleet.plan
        self._token = {"Authorization": f"Bearer {token}"}
        self._chance = random.Random(f"{fleet.plan.seed} road {device.device_id}")
        self._line = fleet.line()
        self._not_before_s = 0.0
        self._call_s = self._chance.uniform(0.0, fleet.plan.heartbeat_every_s)

    async def live(self) -> None:
        """Sell, upload and call home until all is settled, or too late."""
        device, fleet = self._device, self._fleet
        was_away = False
        while not device.is_done and fleet.now_s() < fleet.ends_s:
            device.advance(fleet.now_s())
            if device.is_online(fleet.now_s()):
                await self._visit()
                was_away = False
            elif not was_away:
                was_away = True
                fleet.seen.note("offline")
            now_s = fleet.now_s()
            next_s = device.next_s(now_s)
            if device.is_online(now_s):
                # What is sent, or said, no sooner than the server asked for.
                due_s = min(self._call_s, now_s if device.to_send() else self._call_s)
                next_s = min(next_s, max(due_s, self._not_before_s))
            await asyncio.sleep(max(0.0, min(next_s, fleet.ends_s) - now_s))

    async def _visit(self) -> None:
        """Upload what is sealed, and call home when it is time. A line is not kept idle: the server would cut it."""
        device, fleet = self._device, self._fleet
        for batch in device.to_send():
            if fleet.now_s() < self._not_before_s or not device.is_online(fleet.now_s()):
                break
            await self._upload(batch)
        if max(self._call_s, self._not_before_s) <= fleet.now_s():
            await self._call_home()
        self._line.close()

    async def _upload(self, batch: Batch) -> None:
        seen, fate = self._fleet.seen, self._chance.random()
        road = self._chance.choice((self._by_bucket, self._by_endpoint))
        packed = gzip.compress(batch.jsonl, 6, mtime=0)
        if batch.name.resend:
            seen.note("sent when asked")
        if fate < BY_BOTH_SHARE:
            seen.note("sent by both")
            other = self._fleet.line()
            taken = await asyncio.gather(
                self._by_bucket(self._line, batch, packed), self._by_endpoint(other, batch, packed)
            )
            other.close()
            is_taken = any(taken)
        elif (fate := fate - BY_BOTH_SHARE) < TWICE_SHARE:
            seen.note("sent twice")
            await road(self._line, batch, packed)
            is_taken = await road(self._line, batch, packed)
        elif (fate := fate - TWICE_SHARE) < ANSWER_LOST_SHARE:
            seen.note("answer lost")
            is_taken = await self._lose_answer(batch, packed)
        elif fate - ANSWER_LOST_SHARE < DAMAGED_SHARE and not batch.name.resend and batch.name.day != UNDATED:
            # A copy into an old day's folder is only looked for when its name is due again, after a minute: too long
            # for the short form.
            seen.note("damaged")
            is_taken = await self._by_bucket(self._line, batch, packed[:-20])
        else:
            is_taken = await road(self._line, batch, packed)
        if is_taken:
            batch.accepted_s = self._fleet.now_s()

    async def _by_bucket(self, line: Line, batch: Batch, packed: bytes) -> bool:
        path = f"/storage/v1/object/scout-ingest/{batch.name.key}"
        headers = self._token | {"Content-Type": "application/gzip"}
        answer = await self._fleet.ask(line, Request("bucket", "POST", path, headers, packed))
        if answer.status == 400 and b'"statusCode":"409"' in answer.body:
            self._fleet.seen.note("was there")
            return True
        return self._is_taken("bucket", answer)

    async def _by_endpoint(self, line: Line, batch: Batch, packed: bytes) -> bool:
        answer = await self._fleet.ask(line, self._post(batch, packed))
        if not self._is_taken("endpoint", answer):
            return False
        try:
            receipt = IngestAnswer.parse(answer.body)
        except NotAReceipt as problem:
            return self._is_strange(f"endpoint: {problem}")
        if receipt.lines != batch.name.rows or receipt.sha256 != sha256(batch.jsonl).hexdigest() or receipt.rejected:
            return self._is_strange("endpoint: the receipt is of another batch, or refuses lines")
        self._fleet.seen.note("duplicate rows", receipt.duplicates)
        return True

    async def _lose_answer(self, batch: Batch, packed: bytes) -> bool:
        """Send it and be cut off before the answer: it is sent again at the next visit."""
        line = self._fleet.line()
        try:
            await line.send(self._post(batch, packed))
        except OSError:
            self._fleet.seen.answers.append(("endpoint", 0, 0.0, None))
        line.close()
        return False

    async def _call_home(self) -> None:
        device, fleet = self._device, self._fleet
        sent_s = fleet.now_s()
        device.advance(sent_s)
        report = device.report(sent_s, f"{self._chance.getrandbits(64):016x}")
        self._call_s = sent_s + self._plan.heartbeat_every_s
        headers = self._token | {"Content-Type": "application/json"}
        request = Request("heartbeat", "POST", "/rest/v1/rpc/heartbeat", headers, report.to_json())
        answer = await fleet.ask(self._line, request)
        if not self._is_taken("heartbeat", answer):
            self._call_s = 0.0  # as soon as it may
            return
        try:
            reply = Reply.parse(answer.body, report.nonce)
        except NotAReply as problem:
            self._is_strange(f"heartbeat: {problem}")
            return
        for state in reply.batches.values():
            fleet.seen.note(f"answered {state}" if state in (SETTLED, UNKNOWN) else "answered resend")
        device.take(report, reply, sent_s, fleet.now_s())

    def _post(self, batch: Batch, packed: bytes) -> Request:
        headers = {
            "Content-Type": "application/jsonl",
            "Content-Encoding": "gzip",
            "Idempotency-Key": batch.name.key,
        }
        return Request("endpoint", "POST", "/ingest-transaction", self._token | headers, packed)

    def _is_strange(self, problem: str) -> bool:
        """Note an answer that no agent would believe, and wait; false, as nothing was acknowledged."""
        self._fleet.seen.strange.append(problem)
        self._not_before_s = self._fleet.now_s() + AFTER_TROUBLE_S
        return False

    def _is_taken(self, kind: str, answer: Answer) -> bool:
        """Whether it was; else no more is tried before the server asked for."""
        if answer.status == 200:
            return True
        if answer.status not in (0, *BUSY):
            return self._is_strange(f"{kind}: {answer.status}")
        self._not_before_s = self._fleet.now_s() + (answer.wait_s or AFTER_TROUBLE_S) + self._chance.random()
        return False


class Fleet:
    """All shops, one clock, and what was seen."""

    def __init__(self, url: str, tokens: list[str], cookie: str, plan: Plan) -> None:
        self.plan = plan
        self._cookie = cookie
        self.seen = Seen()
        self.ends_s = plan.seconds + plan.drain_s_max
        self._host = urlsplit(url)
        began = datetime.now(UTC)  # noqa: TID251
        self._began_s = monotonic()
        self._devices = [SimulatedDevice(f"load-{number}", plan, began) for number in range(plan.devices)]
        self._shops = [Shop(device, token, self) for device, token in zip(self._devices, tokens, strict=True)]

    def now_s(self) -> float:
        """Seconds since the fleet was started."""
        return monotonic() - self._began_s

    def line(self) -> Line:
        """A line that nobody else uses."""
        assert self._host.hostname
        assert self._host.port
        return Line(self._host.hostname, self._host.port)

    async def ask(self, line: Line, request: Request) -> Answer:
        """Ask, and note the answer."""
        began_s = self.now_s()
        answer = await line.ask(request)
        took_ms = round((self.now_s() - began_s) * 1000, 1)
        self.seen.answers.append((request.kind, answer.status, took_ms, answer.wait_s))
        return answer

    async def run(self) -> Seen:
        """Live until every device is settled, or too late."""
        looking = asyncio.create_task(self._look())
        await asyncio.gather(*(shop.live() for shop in self._shops))
        looking.cancel()
        seen = self.seen
        seen.drained_s = self.now_s() - self.plan.seconds
        for device in self._devices:
            seen.sold.records += device.sold.records
            seen.sold.sales += device.sold.sales
            seen.sold.centavos += device.sold.centavos
            seen.note("reboots", device.reboots)
            seen.generations |= device.generations
            seen.settled_after_s += device.settled_after_s
            seen.undone += [] if device.is_done else [device.device_id]
            seen.unsettled_rows += device.unsettled_rows
        return seen

    async def _look(self) -> None:
        """Look at the pages, as an operator does while all this goes on."""
        while True:
            for page in PAGES:
                line = self.line()
                await self.ask(line, Request(page, "GET", page, {"cookie": self._cookie}))
                line.close()
            await asyncio.sleep(PAGE_EVERY_S)


async def _run(url: str, tokens: list[str], cookie: str, plan: Plan) -> Seen:
    return await Fleet(url, tokens, cookie, plan).run()


def main() -> None:
    """Read the command line, run the fleet, print."""
    parser = argparse.ArgumentParser(description="Runs a fleet of simulated devices and says what became of it.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--tokens", required=True, type=Path, help="a file with a token on each line")
    parser.add_argument("--cookie", required=True, type=Path, help="a file with the cookie of who looks at the pages")
    parser.add_argument("--plan", required=True, help="a plan as JSON")
    asked = parser.parse_args()
    plan = msgspec.json.decode(asked.plan, type=Plan)
    seen = uvloop.run(_run(asked.url, asked.tokens.read_text().split(), asked.cookie.read_text(), plan))
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
