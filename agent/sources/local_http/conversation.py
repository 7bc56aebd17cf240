"""HTTP on one connection: requests in, answers out, one at a time. Knows nothing of sales.

May be relied on
- A request is answered only when all of it has come, within `request_timeout_s` of its first byte, within
  `body_bytes_max`. A client that leaves in the middle of one has sent nothing.
- What is ambiguous in HTTP is refused: two lengths, a length beside chunks, no length at all.
- After an answer to a request that was not read to its end the connection closes, so that the rest of it is
  never taken for another request.

h11 parses; deadlines, limits and the socket are ours.
"""

import contextlib
import socket
from http import HTTPStatus
from typing import Protocol

import h11

from agent.clock import Clock
from agent.config import LocalHttp
from agent.sources.local_http.messages import Answer, Head, Refused

HEAD_BYTES_MAX = 16 * 1024
"""Of a request's line and headers. A client's own are a few hundred bytes."""

LINGER_S = 2.0
"""A client that still sends hears the refusal only if somebody reads what it sends: closing at once resets it."""

_RECEIVE_BYTES = 64 * 1024


class Door(Protocol):
    """Who knows the answers."""

    def admit(self, head: Head) -> None:
        """Raise Refused when a request is refused whatever its body is."""

    def answer(self, head: Head, body: bytes) -> Answer:
        """The answer to a request; raises Refused."""

    def answered(self, head: Head | None, answer: Answer, seconds: float) -> None:
        """Hear what was answered, and after how long; the head is None when it could not be read."""


class _ClientLeft(Exception):
    """The connection is over."""


class Conversation:
    """One connection. `run` is its thread's; the other public names are everybody's."""

    def __init__(self, line: socket.socket, door: Door, limits: LocalHttp, clock: Clock, *, over_tcp: bool) -> None:
        self._line = line
        self._door = door
        self._limits = limits
        self._clock = clock
        self._over_tcp = over_tcp
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._deadline_s = 0.0
        self._ending = False
        self.idle_since_s: float | None = clock.monotonic_s()

    def run(self) -> None:
        """Answer until the client leaves, stalls or is refused; then close."""
        with self._line, contextlib.suppress(_ClientLeft, OSError):
            while self._exchange():
                pass
            self._linger()

    def end_after_answer(self) -> None:
        """Let the next answer be the last."""
        self._ending = True

    def end_when_idle(self) -> None:
        """Let no further request come; the one being answered still is."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """End it whatever it does."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def _exchange(self) -> bool:
        """Answer one request; True when another may follow."""
        self._await_first_bytes()
        began_s, head = self._clock.monotonic_s(), None
        self._deadline_s = began_s + self._limits.request_timeout_s
        try:
            head = self._read_head()
            _refuse_odd(head)
            self._door.admit(head)
            answer = self._door.answer(head, self._read_body(head))
        except Refused as refused:
            answer = refused.answer
        except h11.RemoteProtocolError as error:
            # h11's own words may quote the request.
            answer = Refused(error.error_status_hint, "this is not HTTP as it is spoken here: mend the client.").answer
        self._door.answered(head, answer, self._clock.monotonic_s() - began_s)
        self._send(head, answer)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _await_first_bytes(self) -> None:
        """Wait for a request to begin. Raises _ClientLeft when none does."""
        if self._http.trailing_data[0]:
            return
        self.idle_since_s = self._clock.monotonic_s()
        self._line.settimeout(self._limits.idle_timeout_s)
        self._receive()
        self.idle_since_s = None

    def _read_head(self) -> Head:
        request = self._next_event()
        assert isinstance(request, h11.Request), "a request begins with its head"
        headers: dict[str, str] = {}
        for name, value in request.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        method, target, version = (
            part.decode("latin-1") for part in (request.method, request.target, request.http_version)
        )
        return Head(method, target.partition("?")[0], version, headers, self._over_tcp)

    def _read_body(self, head: Head) -> bytes:
        """Read the body with its limit. Raises Refused, and _ClientLeft when it doesn't come to its end."""
        bytes_max = self._limits.body_bytes_max
        if head.method == "POST" and not head.headers.keys() & {"content-length", "transfer-encoding"}:
            raise Refused(411, "the body has no length: send Content-Length, or Transfer-Encoding: chunked.")
        if int(head.headers.get("content-length", "0")) > bytes_max:
            raise _too_large(bytes_max)
        body = bytearray()
        while isinstance(event := self._next_event(), h11.Data):
            body += event.data
            if len(body) > bytes_max:
                raise _too_large(bytes_max)
        assert isinstance(event, h11.EndOfMessage), "a body ends with its end"
        return bytes(body)

    def _next_event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._line.sendall(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            left_s = self._deadline_s - self._clock.monotonic_s()
            try:
                self._line.settimeout(max(0.001, left_s))
                self._receive()
            except TimeoutError:
                timeout_s = self._limits.request_timeout_s
                raise Refused(
                    408, f"the request did not come to its end within {timeout_s:g} s: send it again."
                ) from None
        assert not isinstance(event, type), "h11 pauses only between requests"
        return event

    def _receive(self) -> None:
        data = self._line.recv(_RECEIVE_BYTES)
        if not data:
            raise _ClientLeft
        self._http.receive_data(data)

    def _send(self, head: Head | None, answer: Answer) -> None:
        """Send an answer; whoever doesn't read it in time has left."""
        keeps_open = self._http.their_state is h11.DONE and not self._ending
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
            *(() if keeps_open else (("Connection", "close"),)),
        ]
        reason = HTTPStatus(answer.status).phrase  # small clients look for it
        sent = self._http.send(h11.Response(status_code=answer.status, reason=reason, headers=headers)) or b""
        if head is None or head.method != "HEAD":
            sent += self._http.send(h11.Data(answer.body)) or b""
        sent += self._http.send(h11.EndOfMessage()) or b""
        self._line.settimeout(self._limits.request_timeout_s)
        self._line.sendall(sent)

    def _linger(self) -> None:
        """Read what the client still sends, for a moment, so that our answer isn't lost in a reset."""
        self._line.shutdown(socket.SHUT_WR)
        until_s = self._clock.monotonic_s() + LINGER_S
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            self._line.settimeout(left_s)
            if not self._line.recv(_RECEIVE_BYTES):
                return


def _refuse_odd(head: Head) -> None:
    """Raise Refused for what h11 lets through and we don't."""
    if head.version not in ("1.0", "1.1"):
        raise Refused(505, "this version of HTTP is not spoken here: use 1.1.")
    if sum(len(name) + len(value) + 4 for name, value in head.headers.items()) > HEAD_BYTES_MAX:
        raise Refused(431, f"the headers are larger than {HEAD_BYTES_MAX} bytes.")
    if "transfer-encoding" in head.headers and ("content-length" in head.headers or head.version == "1.0"):
        raise Refused(400, "Transfer-Encoding stands alone, and in HTTP/1.1: leave out Content-Length.")


def _too_large(bytes_max: int) -> Refused:
    return Refused(413, f"the body is larger than {bytes_max} bytes (local_http.body_bytes_max). Send it in parts.")
