"""The local HTTP source in the real program: SIGKILL under several posting clients, and the end by SIGTERM."""

import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from agent_kit import FakeServer, marked_token, sale, token_parts, until, write_config
from daemons import QUICK, Daemon
from doors import URL, counts

from agent import config as configuration

LIVES = 8
CLIENTS = 6
MARKER = "Maria Clara"


class Client(threading.Thread):
    """A till that posts one sale after the other; with a key it asks again until it is answered."""

    def __init__(self, first: int, step: int, base_url: str, closing: threading.Event) -> None:
        super().__init__(name=f"till-{first}")
        self._numbers = range(first, 1_000_000, step)
        self._base_url = base_url
        self._closing = closing
        self.acknowledged: list[int] = []
        self.unanswered: list[int] = []
        self.asked_again = 0

    def run(self) -> None:
        """Sell until told to close, and then until the last keyed sale is answered."""
        with httpx.Client(base_url=self._base_url, timeout=30) as client:
            for number in self._numbers:
                if self._closing.is_set():
                    return
                self._sell(client, number, keyed=number % 3 != 0)

    def _sell(self, client: httpx.Client, number: int, *, keyed: bool) -> None:
        headers = {"Idempotency-Key": f"till-{number}"} if keyed else {}
        while True:
            try:
                response = client.post(URL, content=sale(number, customer=MARKER), headers=headers)
            except httpx.ConnectError:
                self._closing.wait(0.02)  # nobody listens yet: nothing was sent
                continue
            except httpx.TransportError:
                if keyed:
                    self.asked_again += 1
                    continue
                self.unanswered.append(number)
                return
            accepted, duplicates, rejected = counts(response)
            assert (accepted + duplicates, rejected) == (1, 0)
            assert keyed or accepted == 1
            self.acknowledged.append(number)
            return


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Return a config for a quick agent that listens on a Unix socket and on a port."""
    (tmp_path / "sales").mkdir()
    (tmp_path / "token").write_text(marked_token(MARKER))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    local_http = {"listen": listen, "socket": str(tmp_path / "ingest.sock")}
    return write_config(tmp_path, server.url, local_http=local_http, **QUICK)


def test_kills_under_posting_clients_lose_no_acknowledged_sale_and_double_none(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """What was answered is delivered, once; what was asked again under its key too; the rest at most once."""
    rng, closing = random.Random(11), threading.Event()
    base_url = f"http://{configuration.load(config).local_http.listen}"
    clients = [Client(first, CLIENTS, base_url, closing) for first in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(LIVES):
        before = sum(len(client.acknowledged) for client in clients)
        daemon = start()
        until(lambda before=before: sum(len(client.acknowledged) for client in clients) > before, "sales are taken")
        threading.Event().wait(rng.uniform(0.0, 0.2))
        daemon.end(signal.SIGKILL)
    assert (config.parent / "ingest.sock").is_socket()
    before = len(daemon.events())
    last = start()
    until(lambda: last.events()[before:].count("local_http_listening") == 2, "it listens, on a socket left behind too")
    closing.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    said = {number for client in clients for number in client.acknowledged}
    until(lambda: said <= set(server.numbers()), "every acknowledged sale arrives", 60)
    arrived = Counter(server.numbers())

    assert len(said) == sum(len(client.acknowledged) for client in clients) > LIVES * 5
    assert sum(client.asked_again for client in clients) > 0
    assert set(arrived.values()) == {1}
    assert set(arrived) - said <= {number for client in clients for number in client.unanswered}


def test_the_program_serves_metrics_and_ends_cleanly_without_a_word_of_a_sale(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """One life of the program as a shop has it: sales, refusals, metrics, SIGTERM."""
    daemon = start()
    until(lambda: daemon.events().count("local_http_listening") == 2, "it listens")
    address = f"http://{configuration.load(config).local_http.listen}"
    posted = httpx.post(f"{address}{URL}", content=sale(1, customer=MARKER))
    bad = httpx.post(f"{address}{URL}", content=b'{"customer":"%s"' % MARKER.encode())
    until(lambda: server.numbers() == [1], "it arrives")
    until(lambda: 'scout_agent_records{state="settled"} 1\n' in metrics(address), "its receipt is in the metrics")
    page = metrics(address)
    assert daemon.end(signal.SIGTERM) == 0
    log = daemon.log.read_text()

    assert (counts(posted), bad.status_code) == ((1, 0, 0), 400)
    for line in (
        'scout_agent_records_taken_total{source="local_http"} 1',
        'scout_agent_local_http_requests_total{path="/ingest-transaction",status="400"} 1',
        'scout_agent_batches_sent_total{path="bucket"} 1',
        "scout_agent_local_http_commits_total 1",
    ):
        assert f"{line}\n" in page
    for secret in [MARKER, *token_parts((config.parent / "token").read_text())]:
        assert secret not in log + page + bad.text
    assert "Traceback" not in log
    assert not (config.parent / "ingest.sock").exists()


def metrics(address: str) -> str:
    """The page."""
    return httpx.get(f"{address}/metrics").text
