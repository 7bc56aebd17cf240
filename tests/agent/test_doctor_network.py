"""The doctor's checks of the way to the server: real sockets, real TLS, and answers that aren't our server's."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from agent_kit import DEVICE, FakeServer, a_token, write_config
from fakes import FakeClock

from agent.clock import SystemClock
from agent.doctor.finding import Finding, exit_status
from agent.doctor.network import Hop, check_certificates, check_connections, check_names, check_proxy, hops_of, proxy_of
from agent.doctor.round import examination
from agent.doctor.server import check_offset

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
ENDS = datetime(2126, 7, 24, 18, 29, 3, tzinfo=UTC)


@contextmanager
def a_listener(*, tls: bool) -> Iterator[int]:
    """Accept connections on a real port, with TLS or silently."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    _greet(context, connection, tls=tls)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _greet(context: ssl.SSLContext, connection: socket.socket, *, tls: bool) -> None:
    if not tls:
        connection.sendall(b"220 this is no TLS\r\n")
        return
    try:
        context.wrap_socket(connection, server_side=True).close()
    except OSError:
        return  # the client refused us


def hop(port: int, host: str = "127.0.0.1", *, tls: bool = True) -> Hop:
    """One place to connect to."""
    return Hop(host, port, is_tls=tls, is_proxy=False)


def trusting(file: Path = AUTHORITY) -> ssl.SSLContext:
    """Trust one authority alone."""
    return ssl.create_default_context(cafile=str(file))


def test_hops_follow_addresses_and_proxies_without_passwords() -> None:
    """Each place once; a proxy's password is never part of what is said."""
    urls = ["https://a.example.com/x", "https://a.example.com/y", "http://b.example.com:8700"]
    direct = hops_of(urls, proxy=lambda _url: None)
    proxied = hops_of(urls, proxy=lambda _url: "http://user:secret@proxy.example.com:3128")
    bare = hops_of(urls[:1], proxy=lambda _url: "proxy.example.com:3128")

    assert direct == (
        Hop("a.example.com", 443, is_tls=True, is_proxy=False),
        Hop("b.example.com", 8700, is_tls=False, is_proxy=False),
    )
    assert proxied == bare == (Hop("proxy.example.com", 3128, is_tls=False, is_proxy=True),)
    assert check_proxy(proxied).message == "through proxy.example.com:3128"
    assert check_proxy(direct).message == "none"


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the daemon."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    assert proxy_of("https://sales.example.com/") == "http://proxy.example.com:3128"
    assert proxy_of("https://127.0.0.1/") is None


def test_a_name_that_is_not_found() -> None:
    """Without a network at all, or mistyped."""

    def lost(_host: str, _port: int) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    outcome = check_names([hop(443, "sales.example.com")], resolve=lost)

    assert outcome.result == "broken"
    assert "sales.example.com can't be found" in outcome.message
    assert check_names([hop(443)]).result == "ok"


def test_a_port_that_does_not_answer() -> None:
    """The server is down, or the port is blocked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert check_connections([hop(port)]).result == "ok"
    outcome = check_connections([hop(port)])

    assert outcome.result == "broken"
    assert f"127.0.0.1:{port} does not answer" in outcome.message


def test_certificates(clock: FakeClock) -> None:
    """Trusted; due soon; by an authority that nobody knows; for another name; no TLS at all; not used."""
    with a_listener(tls=True) as port:
        assert check_certificates([hop(port)], trusting(), clock).result == "ok"
        clock.now_is(ENDS - timedelta(days=3.5))
        due = check_certificates([hop(port)], trusting(), clock)
        unknown = check_certificates([hop(port)], ssl.create_default_context(), clock)
        # The certificate is not for this name, though it leads to the same place.
        other = check_certificates([hop(port, "127.0.0.2")], trusting(), clock)
    with a_listener(tls=False) as port:
        silent = check_certificates([hop(port)], trusting(), clock)
    plain = check_certificates([hop(80, tls=False)], trusting(), clock)
    naked = check_certificates([hop(80, "sales.example.com", tls=False)], trusting(), clock)

    assert (due.result, due.message) == ("attention", "the server's certificate has 4 days left")
    assert (unknown.result, "is not trusted" in unknown.message) == ("broken", True)
    assert (other.result, other.message.startswith("127.0.0.2")) == ("broken", True)
    assert (silent.result, "speaks no TLS" in silent.message) == ("broken", True)
    assert (plain.result, plain.message) == ("ok", "not used")
    assert (naked.result, "unencrypted" in naked.message) == ("attention", True)


@pytest.mark.parametrize(
    ("offset_s", "result", "says"),
    [
        (0, "ok", "within"),
        (100, "attention", "100 s behind"),
        (-100, "attention", "100 s ahead"),
        (900, "broken", "900"),
    ],
)
def test_the_clock_against_the_servers(clock: FakeClock, offset_s: int, result: str, says: str) -> None:
    """By the Date of its answer."""
    date = (clock.now() + timedelta(seconds=offset_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    outcome = check_offset(httpx.Response(400, headers={"Date": date}), clock)

    assert (outcome.result, says in outcome.message) == (result, True)
    assert check_offset(httpx.Response(400), clock).result == "attention"


# The whole round, against a server that answers as ours does (tests/road/test_doctor.py asks the real one).


def refusing(path: str, _body: bytes) -> tuple[int, bytes]:
    """Refuse what the doctor asks just for what is wrong with it."""
    if "/rpc/heartbeat" in path:
        return 400, b'{"code":"22023","details":null,"hint":"","message":"malformed report"}'
    if "/ingest-transaction" in path:
        return 400, b'{"error":"unreadable","message":"line 1","line":1,"reason":"no JSON"}'
    denied = {"statusCode": "403", "error": "Unauthorized", "code": "AccessDenied"}
    return 400, json.dumps(denied | {"message": "new row violates row-level security policy"}).encode()


def scripted(path_part: str, status: int, body: bytes, path: str, asked: bytes) -> tuple[int, bytes]:
    """Answer one path otherwise."""
    return (status, body) if path_part in path else refusing(path, asked)


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Return a good config, with a token and a server that refuses nonsense."""
    (tmp_path / "sales").mkdir()
    in_20_days = SystemClock().now() + timedelta(days=20)
    (tmp_path / "token").write_text(a_token(in_20_days, role="edge_uploader"))
    server.answer = refusing
    return write_config(tmp_path, server.url)


def examined(config: Path) -> dict[str, Finding]:
    """All findings by check."""
    found = examination(
        config,
        clock=SystemClock(),
        client_of=lambda _config: httpx.Client(trust_env=False, timeout=10),
        trusted_by=lambda _config: trusting(),
    )
    return {finding.check: finding for finding in found}


NETWORK = ("name", "connection", "certificate", "server", "server clock", "heartbeat", "bucket", "endpoint")


def test_a_good_way_is_good(config: Path, server: FakeServer) -> None:
    """Three questions with the token, none of which a server would keep."""
    found = examined(config)

    assert {name: found[name].result for name in (*NETWORK, "token")} == dict.fromkeys((*NETWORK, "token"), "ok")
    assert found["service"].result == "broken"
    assert [(path.partition(DEVICE)[2], len(body)) for path, _, body in server.requests] == [
        ("", 29),
        ("/doctor", 0),
        ("", 1),
    ]
    assert all(headers["Authorization"].startswith("Bearer ey") for _, headers, _ in server.requests)


PAGE = b"<html>Welcome to the airport. Please log in.</html>"
REFUSED = b'{"code":"PGRST301","details":null,"hint":null,"message":"JWT expired"}'
NO_BUCKET = b'{"statusCode":"404","error":"Bucket not found","code":"NoSuchBucket","message":"Bucket not found"}'


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (
            ("/rpc/heartbeat", 200, PAGE),
            {"server": "broken", "bucket": "not checked"},
            "a page that is not our server's",
        ),
        (("/rpc/heartbeat", 302, b""), {"server": "broken", "endpoint": "not checked"}, "a login page stands before"),
        (("/rpc/heartbeat", 200, b'{"ok":true}'), {"server": "broken"}, "what our server refuses"),
        (("/rpc/heartbeat", 401, REFUSED), {"server": "ok", "heartbeat": "broken"}, "the token is refused"),
        (("/rpc/heartbeat", 503, b"{}"), {"server": "ok", "heartbeat": "attention"}, "busy or down"),
        (("/scout-ingest/", 400, NO_BUCKET), {"heartbeat": "ok", "bucket": "broken"}, "NoSuchBucket"),
        (("/scout-ingest/", 200, b'{"Key":"x"}'), {"bucket": "broken"}, "to what the bucket refuses"),
        (("/scout-ingest/", 503, b"busy"), {"bucket": "attention", "endpoint": "ok"}, "busy or down"),
        (("/ingest-transaction", 404, PAGE), {"bucket": "ok", "endpoint": "broken"}, "404"),
    ],
)
def test_each_answer_that_is_not_ours_is_found_where_it_is(
    config: Path, server: FakeServer, answer: tuple[str, int, bytes], expected: dict[str, str], says: str
) -> None:
    """A captive portal, a wrong address, a refused token, a busy server: each breaks its own check."""
    server.answer = partial(scripted, *answer)
    found = examined(config)

    assert {name: found[name].result for name in expected} == expected
    spoken = [finding for finding in found.values() if finding.result in ("attention", "broken")]
    assert says in " ".join(finding.message for finding in spoken)
    assert all(finding.next_step for finding in spoken)


def test_without_a_token_the_server_is_still_found(config: Path, server: FakeServer) -> None:
    """It refuses as our server does; what hangs on a token is not asked."""
    (config.parent / "token").unlink()
    server.answer = lambda _path, _body: (401, REFUSED)
    found = examined(config)

    assert {name: found[name].result for name in ("token", "server", "bucket")} == {
        "token": "broken",
        "server": "ok",
        "bucket": "not checked",
    }
    assert len(server.requests) == 1


def test_a_server_that_is_gone_breaks_the_connection_and_nothing_else(config: Path, server: FakeServer) -> None:
    """What lies behind is not checked, and not waited for."""
    config.write_text(config.read_text().replace(server.url, "http://127.0.0.1:9"))
    found = examined(config)

    assert [found[name].result for name in NETWORK] == ["ok", "broken"] + ["not checked"] * 6


def test_a_refused_config_leaves_only_what_needs_none(config: Path) -> None:
    """Every check is listed all the same."""
    config.write_text("[device")
    found = examined(config)

    assert exit_status(list(found.values())) == 2
    assert {found[name].result for name in found if name not in ("config", "clock")} == {"not checked"}
    assert len(found) == 21
