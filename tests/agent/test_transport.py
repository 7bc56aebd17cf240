"""How bytes travel: real sockets, a fake clock, and what each kind of network trouble becomes."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from agent_kit import FakeServer, write_config
from certificates import NOW, YEAR, Authority
from fakes import FakeClock

from agent import config as configuration
from agent.errors import ClockWrong, DeliveryFault, Misconfigured, OperatorNeeded, Wait
from agent.transport import ANSWER_BYTES_MAX, ANSWER_WITHIN_S, PIECE_BYTES, Flow, client_of, post

URL = "https://sales.example.com/ingest-transaction"
PASSWORD = "hush-hush"
RIGHT = datetime(2027, 3, 1, tzinfo=UTC)


def a_config(tmp_path: Path, url: str = "http://127.0.0.1:9", **upload: Any) -> configuration.Config:
    """Load a config with these keys under [upload]."""
    return configuration.load(write_config(tmp_path, url, upload=upload))


def raised_by(error: Exception, clock: FakeClock) -> DeliveryFault:
    """What a fault of the network becomes."""
    with respx.mock, httpx.Client(timeout=7.0) as client:
        respx.post(URL).mock(side_effect=error)
        with pytest.raises(DeliveryFault) as raised:
            post(client, URL, b"x", {}, Flow(clock=clock))
    return raised.value


@contextmanager
def speaking_tls(context: ssl.SSLContext) -> Iterator[str]:
    """Answer every POST over TLS; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A refused handshake is what these tests are about."""

        def finish_request(self, request: Any, client_address: Any) -> None:
            with context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    http = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{http.server_port}/"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def streaming(piece: bytes, headers: dict[str, str]) -> Iterator[str]:
    """Serve answers that never end; give the address."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            while not ended.is_set():
                try:
                    self.wfile.write(piece)
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/"
    finally:
        ended.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"),
        httpx.ConnectTimeout("x"),
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.PoolTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.LocalProtocolError("x"),
        httpx.ProxyError("x"),
        httpx.UnsupportedProtocol("x"),
        httpx.DecodingError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_network_trouble_is_waited_out(clock: FakeClock, error: httpx.RequestError) -> None:
    """Whatever it is; it names the host."""
    fault = raised_by(error, clock)

    assert type(fault) is Wait
    assert str(fault).startswith("sales.example.com: ")


def test_a_try_without_an_answer_is_waited_out_as_long_again(clock: FakeClock) -> None:
    """The server may still be storing: two copies under way at once could cross."""
    fault = raised_by(httpx.ReadTimeout("x"), clock)

    assert isinstance(fault, Wait)
    assert fault.retry_after_s == 7.0


def fault_over_tls(context: ssl.SSLContext, config: configuration.Config, clock: FakeClock) -> DeliveryFault:
    """What a POST to a server with this certificate becomes."""
    with (
        speaking_tls(context) as url,
        client_of(config) as client,
        pytest.raises(DeliveryFault) as raised,
    ):
        post(client, url, b"x", {}, Flow(clock=clock))
    return raised.value


@pytest.mark.parametrize(
    ("now", "synced", "valid", "says"),
    [
        pytest.param(datetime(1970, 1, 1, 0, 5, tzinfo=UTC), True, "later", "reads 1970-01-01 00:05 UTC", id="1970"),
        pytest.param(datetime(2020, 1, 1, tzinfo=UTC), False, "unknown", "is wrong: it reads 2020", id="before-build"),
        pytest.param(RIGHT, False, "unknown", "not synchronised: it reads 2027-03-01", id="unsynced"),
        pytest.param(RIGHT, True, "later", "is not valid yet by this device's clock", id="not-yet-valid"),
        pytest.param(RIGHT, True, "before", "has expired by this device's clock", id="expired"),
    ],
)
def test_a_certificate_refused_under_a_wrong_clock_says_so_and_what_to_do(
    tmp_path: Path, clock: FakeClock, *, now: datetime, synced: bool, valid: str, says: str
) -> None:
    """A Pi without a battery wakes up in another year; nobody would think of that first."""
    clock.now_is(now)
    clock.synced = synced
    authority = Authority(tmp_path)
    contexts = {
        "later": lambda: authority.context(NOW + YEAR / 2),
        "before": lambda: authority.context(NOW - YEAR, NOW - YEAR / 2),
        "unknown": authority.context,
    }
    ca_file = "" if valid == "unknown" else str(authority.file)
    fault = fault_over_tls(contexts[valid](), a_config(tmp_path, ca_file=ca_file), clock)

    assert isinstance(fault, ClockWrong)
    assert says in str(fault)
    assert "clock" in fault.next_step


def test_a_certificate_that_nobody_vouches_for_needs_a_person(tmp_path: Path, clock: FakeClock) -> None:
    """With the clock right, a portal is in the way or an authority is missing."""
    fault = fault_over_tls(Authority(tmp_path).context(), a_config(tmp_path), clock)

    assert isinstance(fault, OperatorNeeded)
    assert "upload.ca_file" in str(fault)


def test_an_authority_of_ones_own_is_trusted_when_the_config_names_it(tmp_path: Path, clock: FakeClock) -> None:
    """A back office without a public certificate needs no tricks."""
    authority = Authority(tmp_path)
    with speaking_tls(authority.context()) as url, client_of(a_config(tmp_path, ca_file=str(authority.file))) as client:
        assert post(client, url, b"x", {}, Flow(clock=clock)).status_code == 204


def test_a_slow_body_keeps_to_its_rate_and_is_never_chunked(clock: FakeClock, server: FakeServer) -> None:
    """So many kilobits a second by the clock, with the length said beforehand; each piece is told."""
    body = bytes(100_000)
    moved: list[int] = []
    before_s = clock.monotonic_s()
    server.answer = lambda _path, _body: (200, b"{}")
    with httpx.Client() as client:
        post(client, f"{server.url}/x", body, {}, Flow(rate_kbit_max=80, moved=moved.append, clock=clock))
    took_s = clock.monotonic_s() - before_s
    (_, headers, received) = server.requests[-1]

    assert received == body
    assert headers["Content-Length"] == "100000"
    assert "Transfer-Encoding" not in headers
    assert 9.5 < took_s < 10.5  # 100,000 bytes at 10,000 a second
    assert sum(moved) == len(body) + 2
    assert max(moved) == 2500


def test_without_a_rate_nothing_waits_and_large_bodies_are_still_told_in_pieces(
    clock: FakeClock, server: FakeServer
) -> None:
    """A watchdog must see that a slow line moves."""
    moved: list[int] = []
    before_s = clock.monotonic_s()
    server.answer = lambda _path, _body: (200, b"")
    with httpx.Client() as client:
        post(client, f"{server.url}/x", bytes(3 * PIECE_BYTES + 1), {}, Flow(moved=moved.append, clock=clock))

    assert moved == [PIECE_BYTES] * 3 + [1]
    assert clock.monotonic_s() == before_s


def test_an_answer_without_end_is_cut_off(clock: FakeClock) -> None:
    """A portal may stream gigabytes; the Pi's memory is small."""
    moved: list[int] = []
    with (
        streaming(bytes(65536), {}) as url,
        httpx.Client() as client,
        pytest.raises(OperatorNeeded, match="more than 1024 KiB"),
    ):
        post(client, url, b"x", {}, Flow(moved=moved.append, clock=clock))

    assert ANSWER_BYTES_MAX < sum(moved) < 2 * ANSWER_BYTES_MAX


def test_an_answer_that_trickles_for_ever_is_cut_off(clock: FakeClock) -> None:
    """Each byte comes in time, the whole never."""
    flow = Flow(moved=lambda _bytes: clock.pass_s(ANSWER_WITHIN_S / 10), clock=clock)
    with streaming(b"x", {}) as url, httpx.Client() as client, pytest.raises(Wait):
        post(client, url, b"x", {}, flow)


def test_an_answer_packed_unasked_is_not_unpacked(clock: FakeClock) -> None:
    """A kilobyte can unpack to a megabyte."""
    with streaming(b"x", {"Content-Encoding": "gzip"}) as url, httpx.Client() as client, pytest.raises(Wait):
        post(client, url, b"x", {}, Flow(clock=clock))


def test_the_proxy_of_the_config_is_used_and_told_its_password_alone(
    tmp_path: Path, clock: FakeClock, server: FakeServer
) -> None:
    """The request reaches the proxy with the whole address; no fault repeats the password."""
    proxy = server.url.replace("http://", f"http://user:{PASSWORD}@")
    server.answer = lambda path, _body: (200, b"{}") if path.startswith("http://nowhere.example/") else None
    with client_of(a_config(tmp_path, proxy=proxy)) as client:
        assert post(client, "http://nowhere.example/x", b"x", {}, Flow(clock=clock)).status_code == 200
        assert server.requests[-1][1]["Proxy-Authorization"].startswith("Basic ")
    with (
        client_of(a_config(tmp_path, proxy=f"http://user:{PASSWORD}@127.0.0.1:9")) as client,
        pytest.raises(Wait) as raised,
    ):
        post(client, "http://nowhere.example/x", b"x", {}, Flow(clock=clock))

    assert PASSWORD not in str(raised.value)


def test_a_proxy_that_refuses_the_way_to_a_secure_server_is_named_without_its_password(
    tmp_path: Path, clock: FakeClock, server: FakeServer
) -> None:
    """This one knows no CONNECT."""
    proxy = server.url.replace("http://", f"http://user:{PASSWORD}@")
    with client_of(a_config(tmp_path, proxy=proxy)) as client, pytest.raises(Wait, match="the proxy refused") as raised:
        post(client, "https://nowhere.example/x", b"x", {}, Flow(clock=clock))

    assert str(raised.value).startswith("nowhere.example: ")
    assert PASSWORD not in str(raised.value)


def test_without_a_proxy_in_the_config_the_environments_counts(
    tmp_path: Path, clock: FakeClock, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual variables, exceptions included."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "near.example")
    server.answer = lambda _path, _body: (200, b"{}")
    with client_of(a_config(tmp_path)) as client:
        post(client, "http://far.example/x", b"x", {}, Flow(clock=clock))
        with pytest.raises(Wait):
            post(client, "http://near.example:9/x", b"x", {}, Flow(clock=clock))

    assert [path for path, _, _ in server.requests] == ["http://far.example/x"]


@pytest.mark.parametrize(
    "address", [f"ftp://user:{PASSWORD}@host", f"http://user:{PASSWORD}@host:99999", f"user:{PASSWORD}@host:3128"]
)
def test_a_proxy_that_is_none_is_refused_without_repeating_it(tmp_path: Path, address: str) -> None:
    """Wherever it stands: it may hold a password."""
    with pytest.raises(Misconfigured, match=r"upload\.proxy") as raised:
        a_config(tmp_path, proxy=address)

    assert PASSWORD not in str(raised.value)


def test_a_proxy_in_the_environment_that_is_none_is_refused_without_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon must not end in a traceback that shows it."""
    config = a_config(tmp_path)
    monkeypatch.setenv("ALL_PROXY", f"ftp://user:{PASSWORD}@host")
    with pytest.raises(Misconfigured, match="ALL_PROXY") as raised:
        client_of(config)

    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_refused_with_its_key(tmp_path: Path, content: bytes | None) -> None:
    """Before anything is sent."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"upload\.ca_file: .*ca\.pem"):
        client_of(a_config(tmp_path, ca_file=str(file)))
