"""What tests of the agent share: spools, configs, tokens, and servers on real sockets."""

import base64
import gzip
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from fakes import FakeClock

from agent.clock import SystemClock
from agent.spool import SealLimits, Spool
from wire.batch import BatchName, content_hash
from wire.record import format_instant

DEVICE = "pi-05"
BUILT_ON = datetime(2026, 11, 23, tzinfo=UTC)
NOW = SealLimits(rows_max=2000, bytes_max=1 << 20, age_max_s=0.0)
"""Limits under which whatever is there is due."""

SERVER_TIME_AT_ZERO = datetime(2027, 3, 1, 2, 13, 20, tzinfo=UTC)
"""The fake server's time when a device's monotonic clock read 0; a FakeClock begins 1,000 s later, in agreement."""

WAIT_S = 20.0


def sale(number: int, **fields: object) -> bytes:
    """One sale, told from every other by its number."""
    return json.dumps({"transaction_id": f"t-{number}", "peso_value": 150.5} | fields).encode()


def open_spool(path: Path, clock: FakeClock, seed: int = 1) -> Spool:
    """Open the spool of the one device that these tests know."""
    return Spool(path, DEVICE, clock=clock, rng=random.Random(seed))


def numbers_in(jsonl: bytes) -> list[int]:
    """The numbers of the sales in a batch, in its order."""
    return [int(json.loads(line)["payload"]["transaction_id"][2:]) for line in jsonl.splitlines()]


def a_token(expires_at: datetime | None = None, **claims: object) -> str:
    """A token in the right form; who signed it is not the agent's to check."""
    expires_at = expires_at or datetime(2027, 3, 25, tzinfo=UTC)
    return jwt.encode(
        {"sub": DEVICE, "exp": int(expires_at.timestamp())} | claims, "a secret that is long enough for HS256"
    )


def environment() -> dict[str, str]:
    """Return an environment in which another Python finds all that this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for something that another process or thread brings about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        threading.Event().wait(0.01)


@dataclass
class FakeServer:
    """Bucket, endpoint and heartbeat as an agent meets them: each name once, and settled as soon as stored."""

    url: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[str, bytes], tuple[int, bytes] | None] = lambda _path, _body: None
    is_on_time: bool = False  # whether its clock is this machine's, rather than the fake clock's
    hang: threading.Event = field(default_factory=threading.Event)
    hanging: threading.Event = field(default_factory=threading.Event)

    def numbers(self) -> list[int]:
        """The numbers of all sales held, by batch."""
        return [number for jsonl in list(self.stored.values()) for number in numbers_in(jsonl)]

    def respond(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer as the server does, unless the test answers first."""
        self.requests.append((path, headers, body))
        scripted = self.answer(path, body)
        if scripted:
            return scripted
        if path.endswith("/rpc/heartbeat"):
            return 200, self.reply(body)
        if path.endswith("/ingest-transaction"):
            jsonl = gzip.decompress(body)
            self.stored[headers["Idempotency-Key"]] = jsonl
            answer = {
                "accepted": jsonl.count(b"\n"),
                "duplicates": 0,
                "rejected": [],
                "sha256": content_hash(jsonl),
            }
            return 200, json.dumps(answer).encode()
        key = path.partition("/scout-ingest/")[2]
        if key in self.stored:
            return 400, b'{"statusCode":"409","code":"KeyAlreadyExists","error":"Duplicate","message":"exists"}'
        jsonl = gzip.decompress(body)
        assert BatchName.parse(key).hash == content_hash(jsonl)[:16]
        self.stored[key] = jsonl
        return 200, json.dumps({"Key": f"scout-ingest/{key}", "Id": "x"}).encode()

    def reply(self, body: bytes, **changed: object) -> bytes:
        """Answer a heartbeat: settled is what is stored."""
        report: dict[str, Any] = json.loads(body)
        fields = {
            "nonce": report["nonce"],
            # A clock that goes on: one that stood still would seem to be set anew at every call.
            "server_time": format_instant(
                SystemClock().now()
                if self.is_on_time
                else SERVER_TIME_AT_ZERO + timedelta(milliseconds=report["mono_ms"])
            ),
            "generation": "g-1",
            "keep_for_days": 8,
            "batches": {key: "settled" if key in self.stored else "unknown" for key in report["awaits"]},
        }
        return json.dumps(fields | changed).encode()


class _Http(ThreadingHTTPServer):
    """An agent that is killed in the middle of a request is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what is not a client's sudden end."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def a_server() -> Iterator[FakeServer]:
    """Serve on a real socket."""
    server = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer, or delayed acknowledgements make it 40 ms

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if server.hang.is_set():
                server.hanging.set()
                server.hang.wait()
                until(lambda: not server.hang.is_set(), "the test lets go")
            status, answer = server.respond(self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    http = _Http(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hang.clear()
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def a_folder_for_all() -> Iterator[Path]:
    """Give a folder that other accounts can pass through, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="scout-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_account(account: int, work: Callable[[], object]) -> str:
    """Do something as an account that may read nothing of ours; return what it printed, errors included.

    A fork, because such an account can't start our Python, which may lie anywhere. It must have been imported.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.setgroups([])
            os.setgid(account)
            os.setuid(account)
            print(work())
        except SystemExit as ending:
            print(f"exit {ending.code}")
        except Exception:  # noqa: BLE001  (it is what the test will show)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        printed = pipe.read()
    os.waitpid(child, 0)
    return printed


def marked_token(marker: str) -> str:
    """A token whose claims hold a marker in plain sight, to be searched for in logs."""
    return a_token(datetime.now(UTC) + timedelta(days=20), marker=marker)  # noqa: TID251  (the real daemon's clock)


def token_parts(token: str) -> list[str]:
    """What of a token must be nowhere: claims and signature, as they stand and decoded."""
    _, claims, signature = token.split(".")
    return [claims, signature, base64.urlsafe_b64decode(claims + "==").decode()]


def write_config(home: Path, url: str, **sections: dict[str, Any]) -> Path:
    """Write a config for everything in one folder, with a token in place; return the file."""
    tables: dict[str, dict[str, Any]] = {
        "device": {"id": DEVICE},
        "server": {"base_url": url, "token_file": str(home / "token")},
        "folder": {"path": str(home / "sales")},
        "spool": {"directory": str(home / "spool")},
    }
    for name, keys in sections.items():
        tables[name] = tables.get(name, {}) | keys
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path = home / "config.toml"
    path.write_text("\n".join(lines))
    if not (home / "token").exists():
        (home / "token").write_text(a_token() + "\n")
    return path
