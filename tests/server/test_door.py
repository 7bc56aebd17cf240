"""The door before the application: bounded work behind it, cheap and helpful refusals before it."""

import asyncio
import json
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.config import LIMITS
from server.door import Door

INGEST, UPLOAD = "/ingest-transaction", "/storage/v1/object/scout-ingest/2026-01-20/pi-05/data.jsonl"
CALL_HOME, HEALTH = "/rest/v1/rpc/heartbeat", "/healthz"
SMALL = replace(
    LIMITS, deliveries_under_way_max=2, calls_home_under_way_max=1, bodies_bytes_max=1000, connections_max=3
)


@dataclass
class Inside:
    """An application that answers when it is let."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    paths: list[str] = field(default_factory=list)
    fails: bool = False
    status: int = 200

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Wait, then answer, or fail."""
        self.paths.append(scope["path"])
        self.entered.set()
        await self.let.wait()
        if self.fails:
            raise RuntimeError
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Answer:
    """What was sent to the client."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def ask(door: Door, path: str = INGEST, **headers: str) -> Answer:
    """Send a request without a body to the door; keyword arguments become headers."""
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": given}
    await door(scope, receive, send)
    return answer


class Visit:
    """A door in use."""

    def __init__(self, connections: int = 0, *, fails: bool = False) -> None:
        self.inside = Inside(fails=fails)
        self.connections = connections
        self.pauses_s: list[float] = []
        self.door = Door(self.inside, SMALL, lambda: self.connections, random.Random(1), self._pause)
        self.waiting: list[asyncio.Task[Answer]] = []

    async def enter(self, path: str = INGEST, **headers: str) -> None:
        """Send a request that is let in, and stays under way."""
        self.inside.entered.clear()
        self.waiting.append(asyncio.create_task(ask(self.door, path, **headers)))
        async with asyncio.timeout(10):
            await self.inside.entered.wait()

    async def _pause(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        if self.inside.status == 429:
            # While one who was too fast waits for its answer, others find its place free.
            self.inside.status = 200
            assert [(await ask(self.door)).status for _ in range(3)] == [200] * 3

    async def leave(self) -> list[Answer | BaseException]:
        """Let all that are under way be answered."""
        self.inside.let.set()
        return await asyncio.gather(*self.waiting, return_exceptions=True)


def run(visit: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(visit)


def refused(answer: Answer) -> None:
    """Assert that an answer is a refusal that says when to come back."""
    assert answer.status == 503
    assert 1 <= int(answer.headers["retry-after"]) <= LIMITS.overload_wait_s_max
    assert "nothing was stored" in json.loads(answer.body)["message"]


def test_what_is_under_way_is_bounded_and_an_end_makes_room() -> None:
    """What is under way is bounded whatever the path, and an end makes room."""

    async def visit() -> None:
        here = Visit()
        await here.enter(INGEST)
        await here.enter(UPLOAD)
        for path in (INGEST, UPLOAD, "/nowhere"):
            refused(await ask(here.door, path))
        await here.leave()
        assert (await ask(here.door)).status == 200
        assert len(here.inside.paths) == 3

    run(visit())


def test_calls_home_and_deliveries_keep_each_other_out_of_nothing() -> None:
    """A flood of either leaves the other its room, and health is answered all the same."""

    async def visit() -> None:
        here = Visit()
        await here.enter(INGEST)
        await here.enter(INGEST)
        await here.enter(CALL_HOME)
        refused(await ask(here.door, CALL_HOME))
        refused(await ask(here.door, INGEST))
        here.inside.let.set()
        assert (await ask(here.door, HEALTH)).status == 200
        await here.leave()

    run(visit())


def test_what_fails_inside_makes_room_too() -> None:
    """What fails inside makes room too."""

    async def visit() -> None:
        here = Visit(fails=True)
        await here.enter(content_length="900")
        await here.enter()
        failed = await here.leave()
        assert [type(error) for error in failed] == [RuntimeError] * 2
        here.inside.fails = False
        assert (await ask(here.door, content_length="900")).status == 200

    run(visit())


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ({"content_length": "600"}, {"content_length": "400"}, False),
        ({"content_length": "600"}, {"content_length": "401"}, True),
        ({"content_length": "600"}, {"transfer_encoding": "chunked"}, True),
        ({"content_length": "600"}, {"content_length": "9" * 5000}, True),
        ({"content_length": "600"}, {"content_length": "²"}, False),
        ({"content_length": "600"}, {}, False),
    ],
)
def test_bodies_are_bounded_together(first: dict[str, str], second: dict[str, str], is_refused: bool) -> None:
    """Bodies are bounded together, before any is read; one that announces nothing counts as the longest."""

    async def visit() -> None:
        here = Visit()
        await here.enter(**first)
        here.inside.let.set()
        answer = await ask(here.door, **second)
        if is_refused:
            refused(answer)
        else:
            assert answer.status == 200
        await here.leave()

    run(visit())


def test_beyond_its_connections_it_refuses_and_closes_but_tells_its_health() -> None:
    """Beyond its connections it refuses and closes, so that there are fewer, but tells its health."""

    async def visit() -> None:
        here = Visit(connections=SMALL.connections_max + 1)
        here.inside.let.set()
        for path in (INGEST, CALL_HOME):
            answer = await ask(here.door, path)
            refused(answer)
            assert answer.headers["connection"] == "close"
        assert (await ask(here.door, HEALTH)).status == 200
        here.connections = SMALL.connections_max
        assert (await ask(here.door)).status == 200

    run(visit())


def test_a_refusal_comes_after_a_pause_and_anything_else_at_once() -> None:
    """A refusal comes after a pause, so that who asks again at once takes no time from the others."""

    async def visit() -> None:
        here = Visit()
        await here.enter()
        await here.enter()
        assert here.pauses_s == []
        refused(await ask(here.door))
        assert here.pauses_s == [LIMITS.refusal_pause_s]
        await here.leave()

    run(visit())


def test_a_device_that_is_too_fast_waits_outside() -> None:
    """A device that is too fast gets its 429 after the same pause, in which it takes nobody's place."""

    async def visit() -> None:
        here = Visit()
        here.inside.let.set()
        here.inside.status = 429
        assert (await ask(here.door, content_length="1000")).status == 429
        assert here.pauses_s == [LIMITS.refusal_pause_s]
        assert [(await ask(here.door, content_length="1000")).status for _ in range(3)] == [200] * 3

    run(visit())


def test_the_waits_are_spread() -> None:
    """Who was refused at the same moment comes back at different ones."""

    async def visit() -> None:
        here = Visit(connections=SMALL.connections_max + 1)
        waits = {(await ask(here.door)).headers["retry-after"] for _ in range(200)}
        assert len(waits) == LIMITS.overload_wait_s_max

    run(visit())
