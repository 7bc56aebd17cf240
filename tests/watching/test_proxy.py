"""deploy/proxy/scout-edge.conf as nginx runs it: a real server behind it, a real agent before it.

May be relied on: what an agent is told through the proxy is what the server said, or an error that it waits for.
"""

import gzip
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from alerts import CHECKOUT
from certificates import NOW, Authority
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from house import PROGRAMS, Server, Shop, stop, tail, wait_for
from nginx import NAME, Nginx, an_nginx
from sales import sales

from agent.errors import BatchRefused
from agent.upload import Connection, Parcel, by_bucket, by_endpoint
from server.config import LIMITS, MEBIBYTE
from wire.identity import ALGORITHM, EnrolRequest, NonceAnswer, assertion_claims, key_text

pytestmark = pytest.mark.proxy

BUCKET = "/storage/v1/object/scout-ingest"
Client = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """Signs the proxy's certificates."""
    (folder / "authority").mkdir()
    return Authority(folder / "authority")


@pytest.fixture(scope="module")
def nginx(folder: Path, server: Server, authority: Authority) -> Iterator[Nginx]:
    """The proxy before the server."""
    with an_nginx(folder / "nginx", server.port, authority.certificate()) as running:
        yield running


@pytest.fixture
def client(nginx: Nginx, authority: Authority) -> Iterator[Client]:
    """Make clients that speak to the proxy from an address of their own."""
    with ExitStack() as opened:

        def make(address: str = NAME, url: str = "") -> httpx.Client:
            trusted = ssl.create_default_context(cafile=str(authority.file))
            transport = httpx.HTTPTransport(verify=trusted, local_address=address)
            return opened.enter_context(
                httpx.Client(base_url=url or nginx.url, transport=transport, timeout=60, trust_env=False)
            )

        yield make


@pytest.fixture
def open_shop(folder: Path, server: Server, nginx: Nginx, authority: Authority) -> Iterator[Callable[..., Shop]]:
    """Make a shop whose agent knows the server by the proxy alone, and was enrolled through it."""
    shops: list[Shop] = []

    def open_one(device: str, **options: str) -> Shop:
        shop = Shop(device, folder / device, nginx.url, "", **options)
        text = shop.config.read_text()
        shop.config.write_text(text.replace("[upload]\n", f'[upload]\nca_file = "{authority.file}"\n'))
        code = json.loads(server.command("devices", "code", device, "--server", nginx.url, "--json"))["code"]
        subprocess.run(
            [PROGRAMS / "scout-agent", "enrol", "--server", nginx.url, "--code", "-", "--config", shop.config],
            input=code.encode(),
            check=True,
        )
        shops.append(shop)
        return shop

    yield open_one
    stop(shop.process for shop in shops)


def sell(shop: Shop, made: Iterator[bytes], name: str, count: int = 20) -> None:
    """Sales that the agent takes into its spool."""
    shop.drop(name, b"[" + b",".join(islice(made, count)) + b"]", renamed=True)
    wait_for(lambda: not list(shop.inbox.glob("*.json")), 30, lambda: f"not taken:\n{tail(shop.log)}")


def wait_until_settled(shop: Shop) -> None:
    """Every sale of the spool has its receipt."""
    wait_for(lambda: shop.unsettled() == 0, 90, lambda: f"not settled:\n{tail(shop.log)}\n{shop.status()}")


def in_bronze(server: Server, device: str) -> int:
    """Rows of a device."""
    with psycopg.connect(server.command("dsn")) as connection:
        row = connection.execute(
            "select count(*) from scout_bronze.transactions_raw where device_id = %s", [device]
        ).fetchone()
    assert row
    return int(row[0])


def service_token(server: Server) -> str:
    """The token that `up` keeps."""
    return (server.data / "secrets" / "service-token").read_text().strip()


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


def expire(server: Server, token_file: Path) -> str:
    """Leave a token there that ended long ago; return it."""
    secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
    claims = jwt.decode(token_file.read_text().strip(), secret, algorithms=["HS256"])
    issued_at = int((NOW - timedelta(days=120)).timestamp())
    old = jwt.encode(claims | {"iat": issued_at, "exp": issued_at + 30 * 86_400}, secret, algorithm="HS256")
    token_file.write_text(old)
    return old


@pytest.mark.parametrize("mode", ["bucket", "endpoint"])
def test_a_device_enrols_delivers_and_renews_through_the_proxy(
    server: Server, open_shop: Callable[..., Shop], mode: str
) -> None:
    """By either path; it knows the server by no other address."""
    shop, made = open_shop(f"pi-{mode}", mode=mode), sales(40, seed=1)
    shop.start()
    sell(shop, made, "before.json")
    wait_until_settled(shop)
    stop([shop.process])
    token_file = shop.config.with_name("token")
    ended = expire(server, token_file)
    shop.start()
    sell(shop, made, "after.json")
    wait_until_settled(shop)

    assert in_bronze(server, shop.device) == 40
    assert token_file.read_text() != ended
    assert shop.status()["last_accepted_by"] == mode


def test_an_object_of_50_mib_passes(server: Server, client: Client) -> None:
    """The largest that the server takes, and it is loaded."""
    sales_of_half_a_mib = 2 * LIMITS.object_bytes_max // MEBIBYTE
    lines = [b'{"transaction_id":"%03d","note":"' % number for number in range(sales_of_half_a_mib)]
    content = b"".join(line.ljust(MEBIBYTE // 2 - 3, b"-") + b'"}\n' for line in lines)
    assert len(content) == LIMITS.object_bytes_max
    key = "2026-01-20/pi-large/large.jsonl"

    answer = client().post(f"{BUCKET}/{key}", content=content, headers=bearer(server.token_for("pi-large")))

    assert (answer.status_code, answer.json()["Key"]) == (200, f"scout-ingest/{key}")
    wait_for(lambda: in_bronze(server, "pi-large") == sales_of_half_a_mib, 90, lambda: tail(server.log))


@pytest.mark.parametrize("deliver", [by_bucket, by_endpoint])
def test_what_is_too_large_is_refused_in_words_that_an_agent_understands(
    server: Server, nginx: Nginx, client: Client, deliver: Callable[[Connection, Parcel], object]
) -> None:
    """It is that batch's own refusal, by the proxy or by the server, and no success."""
    token = server.token_for("pi-large")
    jsonl = os.urandom(LIMITS.object_bytes_max + 1024)
    connection = Connection(
        client(), f"{nginx.url}{BUCKET}", f"{nginx.url}/ingest-transaction", "", "", 1, lambda: token
    )

    with pytest.raises(BatchRefused, match="413"):
        deliver(connection, Parcel("2026-01-20/pi-large/0.jsonl.gz", jsonl, "", 1))
    assert len(gzip.compress(jsonl, 1)) > LIMITS.object_bytes_max


def test_operators_sign_in_with_a_cookie_for_tls_only(server: Server, nginx: Nginx, client: Client) -> None:
    """Forms work as well: the server knows the name and scheme by which the browser knows it. Nothing is packed."""
    browser = client()
    browser.headers["Origin"] = nginx.url
    signed_in = browser.post("/fleet/sign-in", data={"token": service_token(server)})
    page = browser.get("/fleet", headers={"Accept-Encoding": "gzip"})
    proof = page.text.split('name="proof" value="')[1].split('"')[0]
    foreign = browser.post("/fleet/sign-out", data={"proof": proof}, headers={"Origin": "https://elsewhere.example"})
    left = browser.post("/fleet/sign-out", data={"proof": proof})

    assert signed_in.status_code == 303
    assert "; Secure" in signed_in.headers["Set-Cookie"]
    assert page.status_code == 200
    assert "Content-Encoding" not in page.headers
    assert page.headers["Strict-Transport-Security"].startswith("max-age=")
    assert (foreign.status_code, left.status_code) == (403, 303)


def test_plain_http_leads_to_tls(nginx: Nginx) -> None:
    """And nothing else is answered there."""
    answer = httpx.get(f"http://{NAME}:{nginx.plain_port}/fleet?state=silent", trust_env=False)

    assert (answer.status_code, answer.headers["Location"]) == (301, f"https://{NAME}/fleet?state=silent")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(nginx: Nginx, authority: Authority) -> None:
    """1.2 and 1.3 are spoken."""

    def speaks(version: ssl.TLSVersion) -> bool:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse by itself
        context.minimum_version = context.maximum_version = version
        with suppress(ssl.SSLError), httpx.Client(verify=context, trust_env=False) as asking:
            try:
                return asking.get(f"{nginx.url}/healthz").status_code == 200
            except httpx.ConnectError:
                return False
        return False

    versions = (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert [speaks(version) for version in versions] == [False, True, True]


def test_the_steps_that_prove_a_project_from_outside_do_so(server: Server, nginx: Nginx, authority: Authority) -> None:
    """As deploy/supabase/README.md has them: let in, and refused twice. Here our own storage endpoint answers."""
    steps = (CHECKOUT / "deploy" / "supabase" / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(TOKEN=.*?)```", steps, re.DOTALL)
    environment = {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "SCOUT_DATA": str(server.data),
        "CURL_CA_BUNDLE": str(authority.file),
        "API_KEY": "public",
        "BUCKET_URL": f"{nginx.url}{BUCKET}",
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", block.replace("curl ", "curl --silent --write-out '\n' ")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    stored, elsewhere, read, *_ = (line for line in done.stdout.splitlines() if line.startswith("{"))

    assert done.returncode == 0, done.stderr
    assert json.loads(stored)["Key"].endswith("/verify-05/empty.jsonl")
    assert json.loads(elsewhere)["statusCode"] == "403"
    assert "Key" not in read


def ask_to_enrol(asking: httpx.Client, **headers: str) -> httpx.Response:
    """Try a code that opens nothing."""
    key = Ed25519PrivateKey.generate()
    public = key_text(key.public_key().public_bytes_raw())
    nonce = NonceAnswer.parse(asking.post("/oauth/nonce").content)
    proof = jwt.encode(assertion_claims(public, nonce), key, algorithm=ALGORITHM)
    asked = EnrolRequest("0000-0000-0000-0000", public, proof, None)
    return asking.post("/enrol", content=asked.to_json(), headers=headers)


def test_who_tries_codes_is_braked_by_an_address_that_nobody_can_make_up(client: Client) -> None:
    """Not as one with all who come through the proxy; and the wait passes unchanged."""
    guesser, other = client("127.0.0.2"), client("127.0.0.3")
    tried = [ask_to_enrol(guesser).status_code for _ in range(10)]
    braked = ask_to_enrol(guesser)
    disguised = ask_to_enrol(guesser, **{"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"})

    assert tried == [400] * 10
    assert (braked.status_code, disguised.status_code) == (429, 429)
    assert 0 < int(braked.headers["Retry-After"]) <= 600
    assert ask_to_enrol(other).status_code == 400


def test_a_server_that_is_down_is_waited_for(server: Server, nginx: Nginx, open_shop: Callable[..., Shop]) -> None:
    """Nginx says so in the server's form; the agent keeps its sales, and goes on by itself."""
    shop, made = open_shop("pi-down"), sales(40, seed=2)
    shop.start()
    sell(shop, made, "before.json")
    wait_until_settled(shop)
    stop([server.process])
    try:
        sell(shop, made, "while.json")
        said = "answered 502"
        wait_for(lambda: said in fault_of(shop), 30, lambda: f"{shop.status()}\n{tail(shop.log)}")
        waiting, seen = shop.status()["rows_not_sent"], fault_of(shop)
        answer = httpx.get(f"{nginx.url}/healthz", verify=False, trust_env=False)  # noqa: S501
    finally:
        server.start()
    wait_until_settled(shop)

    assert waiting == 20
    assert "web page" not in seen
    assert (answer.status_code, answer.json()["error"]) == (502, "bad_gateway")
    assert in_bronze(server, shop.device) == 40


def fault_of(shop: Shop) -> str:
    """What the agent says went wrong last."""
    fault = shop.status()["last_fault"]
    return str(fault["message"]) if fault else ""


def test_a_reload_under_load_loses_nothing(
    server: Server, nginx: Nginx, client: Client, open_shop: Callable[..., Shop]
) -> None:
    """Agents deliver and tills post while nginx starts new workers again and again: what was acknowledged is there."""
    shop, made = open_shop("pi-reload"), sales(600, seed=3)
    shop.start()
    token, over = server.token_for("pi-posts"), threading.Event()
    acknowledged: list[int] = []
    refused: list[int] = []

    def post(first: int, asking: httpx.Client) -> None:
        number = first
        while not over.is_set():
            headers = bearer(token) | {"Idempotency-Key": f"key-{number}"}
            try:
                answer = asking.post("/ingest-transaction", json={"transaction_id": str(number)}, headers=headers)
            except httpx.TransportError:
                continue  # as a connection that was idle is closed: the same again
            if answer.status_code == 200:
                acknowledged.append(number)
                number += 4
            else:
                refused.append(answer.status_code)

    threads = [threading.Thread(target=post, args=(first, client())) for first in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(6):
            sell(shop, made, f"{number}.json", 100)
            nginx.reload()
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    wait_until_settled(shop)

    assert len(acknowledged) > 50
    assert refused == []
    assert in_bronze(server, "pi-posts") == len(acknowledged)
    assert in_bronze(server, "pi-reload") == 600


def test_a_certificate_that_is_not_good_is_named_by_the_agent(
    nginx: Nginx, authority: Authority, tmp_path: Path, open_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has expired, one of an unknown authority; once there is a good one it goes on by itself."""
    # As systemd gives it one: on the card, what the agent says of itself is written more seldom.
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    stranger = Authority(tmp_path, "a stranger")
    shop, made = open_shop("pi-certificate"), sales(20, seed=4)
    good = authority.certificate()
    try:
        for bad, said in (
            (authority.certificate(NOW - timedelta(days=9), NOW - timedelta(days=1)), "certificate has expired"),
            (stranger.certificate(), "certificate was not accepted"),
        ):
            nginx.present(bad)
            if shop.process is None:
                shop.start()
                sell(shop, made, "sales.json")
            wait_for(lambda said=said: said in fault_of(shop), 60, lambda: f"{shop.status()}\n{tail(shop.log)}")
            seen = shop.status()
            assert said in " ".join(problem["message"] for problem in seen["attention"])
            assert seen["rows_not_sent"] == 20
    finally:
        nginx.present(good)
    wait_until_settled(shop)

    assert shop.status()["rows_settled"] == 20


class Echo(BaseHTTPRequestHandler):
    """A server that says what reached it, with the status that the path asks for."""

    protocol_version = "HTTP/1.1"
    connections: set[object]

    def do_POST(self) -> None:
        """Answer."""
        self.server.connections.add(self.client_address)  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        status = int(self.path.strip("/"))
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def echo(folder: Path, authority: Authority) -> Iterator[tuple[Nginx, set[object]]]:
    """The proxy before a server that echoes, and the connections that this one saw."""
    with ThreadingHTTPServer((NAME, 0), Echo) as behind:
        behind.connections = set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=behind.serve_forever)
        thread.start()
        try:
            with an_nginx(folder / "echo", behind.server_port, authority.certificate()) as running:
                yield running, behind.connections  # type: ignore[attr-defined]
        finally:
            behind.shutdown()
            thread.join()


def test_answers_pass_unchanged_and_the_server_hears_who_asks(echo: tuple[Nginx, set[object]], client: Client) -> None:
    """Status, Retry-After and body of a refusal; the client's address, scheme and host; one connection for many."""
    running, connections = echo
    asking = client("127.0.0.4", running.url)
    lies = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    answers: dict[int, httpx.Response] = {
        status: asking.post(f"/{status}", content=b"x", headers=lies) for status in (200, 429, 503, 413, 502)
    }
    heard: dict[str, Any] = answers[503].json()

    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    assert {answer.headers.get("Retry-After") for status, answer in answers.items() if status != 200} == {"7"}
    assert heard["X-Forwarded-For"] == "127.0.0.4"
    assert heard["X-Forwarded-Proto"] == "https"
    assert heard["Host"] == f"{NAME}:{running.port}"
    assert len(connections) == 1


def test_operators_addresses_can_be_kept_to_ones_own_network(
    folder: Path, server: Server, authority: Authority, client: Client
) -> None:
    """The lines that say so are there, to be uncommented; devices are let in from everywhere."""
    lines = {"# allow 192.0.2.0/24;": "allow 127.0.0.2;", "# deny all;": "deny all;"}
    with an_nginx(folder / "closed", server.port, authority.certificate(), **lines) as closed:
        inside, outside = client("127.0.0.2", closed.url), client("127.0.0.3", closed.url)
        paths = ("/fleet/sign-in", "/metrics", "/healthz", "/fleetwood", "/fleet")
        found = [[asking.get(path).status_code for path in paths] for asking in (inside, outside)]

    assert found == [[200, 401, 200, 404, 303], [403, 403, 200, 404, 403]]


def test_an_open_server_lets_nobody_in_through_the_proxy(folder: Path, authority: Authority, client: Client) -> None:
    """`--open` is for programs on the same machine; a proxy names itself."""
    (folder / "open").mkdir(mode=0o711)
    behind = Server(folder / "open", "--open")
    behind.start()
    try:
        with an_nginx(folder / "before-open", behind.port, authority.certificate()) as running:
            sale, device = {"transaction_id": "1"}, {"x-device-id": "pi-05"}
            direct = httpx.post(f"{behind.base_url}/ingest-transaction", json=sale, headers=device, trust_env=False)
            through = client(url=running.url).post("/ingest-transaction", json=sale, headers=device)
            disguised = client(url=running.url).post(
                "/ingest-transaction", json=sale, headers=device | {"Host": "localhost"}
            )
    finally:
        stop([behind.process])

    assert [answer.status_code for answer in (direct, through, disguised)] == [200, 403, 403]
