"""Stands before the application: takes in no more than can be worked on soon, and says to the rest when to come back.

    request ─▶ too many connections? ─▶ too many of its kind under way? ─▶ bodies too large together? ─▶ application
                   503, then closed          503                                503                            429

May be relied on: what waits is bounded in number and in bytes, so overload costs latency up to a point and memory up
to a point, and ends when it ends. A refusal is cheap (no token is verified, no body read), carries `Retry-After`, and
stored nothing. Deliveries and calls home have room of their own: neither keeps the other out. Health is always asked.

The waits are spread at random: a region whose power is back comes all at once, and would so again. And a refusal is
given after a short pause, which is no work: a client that asks again at once, whatever `Retry-After` says, would
otherwise be refused thousands of times a second, and nothing else would come to its turn.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config import Limits

HEALTH = "/healthz"
CALLS_HOME = "/rest/v1/rpc/heartbeat"


@dataclass(slots=True)
class _Room:
    """Requests of one kind that are under way."""

    requests_max: int
    requests: int = 0

    @property
    def is_full(self) -> bool:
        return self.requests >= self.requests_max


class Door:
    """An application that refuses what the one behind it could not work on soon. Used by one thread.

    `connections` counts those that are open, idle ones included.
    """

    def __init__(
        self,
        application: ASGIApp,
        limits: Limits,
        connections: Callable[[], int],
        rng: random.Random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._application = application
        self._limits = limits
        self._connections = connections
        self._rng = rng
        self._pause = pause
        self._calls_home = _Room(limits.calls_home_under_way_max)
        self._deliveries = _Room(limits.deliveries_under_way_max)
        self._bodies_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self._application(scope, receive, send)
            return
        room = self._calls_home if scope["path"] == CALLS_HOME else self._deliveries
        body_bytes = self._announced(Headers(scope=scope))
        if self._connections() > self._limits.connections_max:
            await self._refuse(send, closing=True)
        elif room.is_full or self._bodies_bytes + body_bytes > self._limits.bodies_bytes_max:
            await self._pause(self._limits.refusal_pause_s)
            await self._refuse(send)
        else:
            leave = self._enter(room, body_bytes)

            async def send_on(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] == 429:
                    leave()
                    await self._pause(self._limits.refusal_pause_s)
                await send(message)

            try:
                await self._application(scope, receive, send_on)
            finally:
                leave()

    def _enter(self, room: _Room, body_bytes: int) -> Callable[[], None]:
        """Take a place; return what gives it back, once however often it is called."""
        is_inside = True
        room.requests += 1
        self._bodies_bytes += body_bytes

        def leave() -> None:
            nonlocal is_inside
            if is_inside:
                is_inside = False
                room.requests -= 1
                self._bodies_bytes -= body_bytes

        return leave

    def _announced(self, headers: Headers) -> int:
        """How much of memory this body may take. One without a length may grow as far as any post."""
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            # A larger one is refused for itself, before it is read.
            return min(int(length[:20]), self._limits.object_bytes_max)
        return self._limits.body_bytes_max if "transfer-encoding" in headers else 0

    async def _refuse(self, send: Send, *, closing: bool = False) -> None:
        wait_s = self._rng.randint(1, self._limits.overload_wait_s_max)
        message = "the server has more to do than it can: nothing was stored; send it again after Retry-After."
        body = orjson.dumps({"error": "service_unavailable", "message": message})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % wait_s),
        ]
        if closing:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
