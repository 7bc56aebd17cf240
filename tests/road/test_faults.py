"""Everything a shop's network does, one after the other, while sales flow from a real agent to a real server."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fault_proxy
import pytest
from certificates import NOW, YEAR, Authority
from fault_proxy import Fault, FaultProxy, answering, late, slow
from house import Server, Shop, stop, tail, wait_for, wait_until_drained
from test_kills import Feeder

SEED = 20261125
MET_TIMES = 2  # so often each fault is met before it ends
RECOVERED_WITHIN_S = 20.0
PORTAL = b"<!doctype html><title>Free WiFi</title>Please accept our terms"
LOCKED = b'{"statusCode":"503","code":"LockTimeout","message":"acquiring lock timeout"}'
TOKEN_REFUSED = "token refused"  # pauses for a minute; a token that is put in place ends that
ANOTHERS = b'{"accepted":9,"duplicates":0,"rejected":[],"sha256":"' + b"00" * 32 + b'"}'

BROKEN = "the connection broke"

FAULTS: dict[str, tuple[Fault, str]] = {
    # what happens, and what the agent says of it
    "latency": (late(0.3), ""),
    "slow answers": (slow(400.0), ""),
    "connection lost": (fault_proxy.lost, BROKEN),
    "reset in the body": (fault_proxy.reset_in_the_body, BROKEN),
    "answer lost": (fault_proxy.answer_lost, BROKEN),
    "stalled": (fault_proxy.stalled, "no answer to what was sent"),
    "stalled in the answer": (fault_proxy.stalled_in_the_answer, "no answer to what was sent"),
    "truncated answer": (fault_proxy.truncated, BROKEN),
    "garbled answer": (fault_proxy.garbled, "answered 200, but"),
    "another protocol": (fault_proxy.not_http, BROKEN),
    "another request's answer": (fault_proxy.anothers_answer, "the answer belongs to another report"),
    "another batch's receipt": (answering("200 OK", ANOTHERS), "answered 200, but"),
    "portal that says 200": (answering("200 OK", PORTAL, "Content-Type: text/html"), "with a web page"),
    "portal that redirects": (answering("302 Found", b"", "Location: http://portal.example/"), "points elsewhere"),
    "portal that says 511": (answering("511 Network Authentication Required", PORTAL), "answered 511 with a web page"),
    "proxy that forbids": (answering("403 Forbidden", PORTAL), "answered 403 with a web page"),
    "proxy that says 200 to all": (answering("200 OK", b"{}"), "answered 200, but"),
    "server errors": (answering("500 Internal Server Error", b"{}"), "answered 500"),
    "too many requests": (answering("429 Too Many Requests", b"{}", "Retry-After: 1"), "answered 429"),
    "busy inside a 400": (answering("400 Bad Request", LOCKED), "answered 503 LockTimeout"),
    TOKEN_REFUSED: (answering("401 Unauthorized", b"{}"), "answered 401"),
}


class Agent(Shop):
    """A shop whose agent is impatient, so that a test need not be patient."""

    def point_to(self, base_url: str, ca_file: str = "") -> None:
        """Change the config, whether the agent runs or not."""
        keys = {
            "base_url": f'base_url = "{base_url}"',
            "retry_wait_max_s": f'retry_wait_max_s = 0.2\nstall_timeout_s = 0.5\nca_file = "{ca_file}"',
            "interval_s": "interval_s = 0.3",
            "age_max_s": "age_max_s = 0.1",
        }
        lines = [line for line in self.config.read_text().splitlines() if not line.startswith(("stall_", "ca_file"))]
        self.config.write_text("\n".join(keys.get(line.split(" = ")[0], line) for line in lines) + "\n")

    def events(self, name: str) -> list[dict[str, str]]:
        """What the agent logged under this name so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in said if event["event"] == name]


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    """Give a proxy in front of the server."""
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def agent(server: Server, proxy: FaultProxy, road_folder: Path) -> Iterator[Agent]:
    """Give an agent that runs behind the proxy."""
    url = f"http://127.0.0.1:{proxy.port}"
    agent = Agent("pi-05", road_folder / "pi-05", url, server.token_for("pi-05"))
    agent.point_to(url)
    agent.start()
    yield agent
    stop([agent.process])


@pytest.fixture
def till(agent: Agent) -> Iterator[Feeder]:
    """Give a till that sells without a pause."""
    till = Feeder(agent, random.Random(SEED))
    till.start()
    yield till
    till.close()


def test_whatever_the_network_does_no_sale_is_lost_or_doubled_and_the_agent_recovers_alone(
    server: Server, proxy: FaultProxy, agent: Agent, till: Feeder, road_folder: Path
) -> None:
    """Each fault is met, ends, and is got over without a restart; bronze then holds every sale once."""
    _recovers(agent, "the start")
    for name, (fault, says) in FAULTS.items():
        _endure(proxy, agent, name, fault, says=says)
    authority = Authority(road_folder)
    proxy.context = authority.context()
    proxy.begin(None)
    agent.point_to(f"https://127.0.0.1:{proxy.port}", str(authority.file))
    _recovers(agent, "TLS, by a changed config")
    (road_folder / "stranger").mkdir()
    certificates = {
        "a stranger's certificate": Authority(road_folder / "stranger", "stranger").context(),
        "an expired certificate": authority.context(NOW - YEAR, NOW - YEAR / 2),
        "a certificate of tomorrow": authority.context(NOW + YEAR / 2),
    }
    for name, context in certificates.items():
        good, proxy.context = proxy.context, context
        mend = partial(setattr, proxy, "context", good)
        _endure(proxy, agent, name, None, says="certificate", mend=mend)
    till.close()
    wait_until_drained(server, [agent], 60, lambda _open: None)

    transaction_ids, identities = server.row("transaction_ids")
    gaps, forks, _duplicates, quarantined, _lag_s = server.row("counts")
    assert len(till.written) > 100
    assert sorted(transaction_ids) == sorted(till.written)
    assert identities == len(till.written)
    assert (gaps, forks, quarantined) == (0, 0, 0)
    assert len(agent.events("agent_started")) == 1


def _endure(
    proxy: FaultProxy,
    agent: Agent,
    name: str,
    fault: Fault | None,
    *,
    says: str,
    mend: Callable[[], None] = lambda: None,
) -> None:
    """Let the agent meet a fault some times and say what it is; end it, and see the agent recover."""
    before = len(_faults(agent))
    proxy.begin(fault)
    complaint = lambda: f"{name} was not met, or not understood\n{tail(agent.log)}"  # noqa: E731
    wait_for(lambda: proxy.met >= MET_TIMES or name == TOKEN_REFUSED, 30, complaint)
    wait_for(lambda: not says or any(says in reason for reason in _faults(agent)[before:]), 30, complaint)
    mend()
    proxy.begin(None)
    if name == TOKEN_REFUSED:
        token_file = agent.config.parent / "token"
        token_file.write_text(token_file.read_text() + "\n")
    _recovers(agent, name)


def _recovers(agent: Agent, after: str) -> None:
    """Wait for the next batch that gets through."""
    before = len(agent.events("batch_uploaded"))
    wait_for(
        lambda: len(agent.events("batch_uploaded")) > before,
        RECOVERED_WITHIN_S,
        lambda: f"no batch got through after: {after}\n{tail(agent.log)}",
    )


def _faults(agent: Agent) -> list[str]:
    names = ("batch_not_sent", "heartbeat_not_answered", "credentials_refused", "batch_refused")
    return [event["reason"] for name in names for event in agent.events(name)]
