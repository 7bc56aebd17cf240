"""A server that answers as it is told, request after request: whole, cut off, or not at all."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What one request gets. A `cut` answer ends before its announced length, a `dropped` one never begins.

    Of one whose length is not `announced`, the connection's end is the end.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    dropped: bool = False
    announced: bool = True


DROPPED = Answer(dropped=True)


@dataclass
class Script:
    """The answers to come, the last of which repeats for ever; and the requests that came."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def next(self, request_line: str, headers: dict[str, str]) -> Answer:
        """Note the request and take its answer."""
        self.requests.append(request_line)
        self.headers.append(headers)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def scripted_server() -> Iterator[Script]:
    """Answer on a real port until the end."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = script.next(self.requestline, {name.lower(): value for name, value in self.headers.items()})
            self.close_connection = True
            if answer.dropped:
                return
            self.send_response(answer.status)
            length = {"Content-Length": str(len(answer.body) + answer.cut)} if answer.announced else {}
            headers = length | answer.headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
