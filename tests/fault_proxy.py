"""A proxy on loopback that stands between agent and server and does what networks do.

May be relied on: without a fault, bytes pass both ways unchanged. A new fault cuts the connections there are, so
that every request from then on meets it; `met` counts those. Faults are functions of one connection.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK_BYTES = 4096
TIMEOUT_S = 20.0  # nothing here waits longer, whatever a test does

Fault = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One connection of the agent's, and the way on to the server."""

    client: socket.socket
    server_port: int
    ended: threading.Event
    remembered: dict[bytes, bytes] = field(default_factory=dict)

    def request(self) -> bytes:
        """Read the whole request."""
        return read_message(self.client)

    def answer_to(self, request: bytes) -> bytes:
        """Ask the server and read its whole answer."""
        with socket.create_connection(("127.0.0.1", self.server_port), TIMEOUT_S) as server:
            server.sendall(request)
            return read_message(server)

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the fault ends before."""
        self.ended.wait(seconds)


class FaultProxy:
    """Listens on a port of its own; with a TLS context, as a server with that certificate."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._fault: Fault | None = None
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._remembered: dict[bytes, bytes] = {}
        self.context: ssl.SSLContext | None = None
        self.port: int = self._listener.getsockname()[1]
        self.met = 0
        self._thread = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self._thread.start()

    def begin(self, fault: Fault | None) -> None:
        """From now on every connection meets this fault; None: no fault."""
        with self._lock:
            self._ended.set()
            self._ended = threading.Event()
            self._fault, self.met = fault, 0
            cut, self._open = self._open, set()
        for connection in cut:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and cut what there is."""
        self.begin(None)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(TIMEOUT_S)
        with self._lock:
            fault, ended = self._fault, self._ended
            self._open.add(client)
            self.met += 1
        with suppress(OSError, EOFError, ssl.SSLError):
            if self.context is not None:
                plain, client = client, self.context.wrap_socket(client, server_side=True)
                with self._lock:
                    self._open = (self._open - {plain}) | {client}
            (fault or relay)(Exchange(client, self._server_port, ended, self._remembered))
        with self._lock:
            self._open.discard(client)
        client.close()


def read_message(connection: socket.socket) -> bytes:
    """Read one HTTP message with a Content-Length; raise EOFError when it is cut."""
    message = b""
    while b"\r\n\r\n" not in message:
        message += _some(connection)
    head, _, body = message.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def relay(exchange: Exchange) -> None:
    """No fault: bytes pass as they come, as many requests as there are."""
    with socket.create_connection(("127.0.0.1", exchange.server_port), TIMEOUT_S) as server:
        back = threading.Thread(target=_pump, args=(server, exchange.client), daemon=True)
        back.start()
        _pump(exchange.client, server)
        back.join()


def lost(exchange: Exchange) -> None:
    """The connection ends before a byte of the answer."""
    exchange.client.recv(1)


def reset_in_the_body(exchange: Exchange) -> None:
    """The connection is torn in the middle of what is sent; the server sees the beginning."""
    with socket.create_connection(("127.0.0.1", exchange.server_port), TIMEOUT_S) as server:
        server.sendall(exchange.client.recv(600))
        _reset(server)
    _reset(exchange.client)


def answer_lost(exchange: Exchange) -> None:
    """The server did what was asked, and nobody hears of it."""
    exchange.answer_to(exchange.request())
    _reset(exchange.client)


def stalled(exchange: Exchange) -> None:
    """Everything is taken and nothing answered."""
    exchange.request()
    exchange.wait(TIMEOUT_S)


def stalled_in_the_answer(exchange: Exchange) -> None:
    """The answer stops half way, with the connection open."""
    answer = exchange.answer_to(exchange.request())
    exchange.client.sendall(answer[: len(answer) // 2])
    exchange.wait(TIMEOUT_S)


def truncated(exchange: Exchange) -> None:
    """The answer is cut."""
    answer = exchange.answer_to(exchange.request())
    exchange.client.sendall(answer[:-5])


def garbled(exchange: Exchange) -> None:
    """The answer's body is not what was sent, in the right length."""
    head, _, body = exchange.answer_to(exchange.request()).partition(b"\r\n\r\n")
    exchange.client.sendall(head + b"\r\n\r\n" + bytes(byte ^ 0x15 for byte in body))


def not_http(exchange: Exchange) -> None:
    """Something answers that speaks another language."""
    exchange.request()
    exchange.client.sendall(b"220 mail.example.com ESMTP\r\n")


def late(seconds: float) -> Fault:
    """Everything arrives, later."""

    def fault(exchange: Exchange) -> None:
        request = exchange.request()
        exchange.wait(seconds)
        exchange.client.sendall(exchange.answer_to(request))

    return fault


def slow(bytes_per_s: float) -> Fault:
    """Everything arrives, a little at a time."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.answer_to(exchange.request())
        for start in range(0, len(answer), 20):
            exchange.client.sendall(answer[start : start + 20])
            exchange.wait(20 / bytes_per_s)

    return fault


def answering(status: str, body: bytes = b"", *headers: str) -> Fault:
    """Somebody else answers, and the server hears nothing: a portal, a proxy, a gateway."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def fault(exchange: Exchange) -> None:
        exchange.request()
        exchange.client.sendall(answer)

    return fault


def anothers_answer(exchange: Exchange) -> None:
    """A cache gone wrong: each address answers what it answered first, whatever is asked."""
    request = exchange.request()
    path = request.split(b" ", 2)[1]
    address = b"/storage/" if path.startswith(b"/storage/") else path
    if address not in exchange.remembered:
        exchange.remembered[address] = exchange.answer_to(request)
        return
    exchange.client.sendall(exchange.remembered[address])


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _some(connection: socket.socket) -> bytes:
    chunk = connection.recv(CHUNK_BYTES)
    if not chunk:
        raise EOFError
    return chunk


def _reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
