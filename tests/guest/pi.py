"""What the tests do to a guest with scout-agent in it: enrol it, and see what it still has and what arrived."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from agent_kit import until
from emulated import HOST, Guest, Said
from house import Server
from running_server import a_code

DEVICE = "pi-05"
DRAINED_S = 300.0

QUICK = """
[local_http]
listen = "127.0.0.1:8710"
[batch]
age_max_s = 1.0
[upload]
retry_wait_max_s = 2.0
[heartbeat]
interval_s = 1.0
"""
"""For a test that has no minute to wait, and a till that posts."""


@dataclass(frozen=True)
class Arrived:
    """What bronze holds, and what the server complains of."""

    times: Counter[str]
    gaps: int
    forks: int
    quarantined: int

    @property
    def twice(self) -> set[str]:
        """Sales that are there more than once."""
        return {name for name, times in self.times.items() if times > 1}


def enrol(guest: Guest, server: Server) -> Said:
    """Type what the back office says."""
    return guest.run(f"scout-agent enrol --server {address_of(server)} --code {a_code(server, DEVICE)}")


def enrol_in_a_hurry(guest: Guest, server: Server) -> None:
    """Enrol, then hurry the agent up."""
    enrol(guest, server)
    guest.run(f"cat >> /etc/scout-agent/config.toml <<'END'\n{QUICK}\nEND\nsystemctl restart scout-agent")


def address_of(server: Server) -> str:
    """Where the guest finds a server of this machine."""
    return f"http://{HOST}:{server.port}"


def wait_until_drained(guest: Guest) -> None:
    """Wait until the agent answers for nothing any more: every sale is settled, and the folder is empty."""

    def is_drained() -> bool:
        files = guest.run("find /var/lib/till/sales -maxdepth 1 -name '*.jsonl'").text
        seen = status(guest)
        return not (files or seen["rows_not_sent"] or seen["rows_accepted"])

    _wait(is_drained, guest, "every sale is settled")


def wait_until_arrived(guest: Guest, server: Server, names: set[str]) -> None:
    """Wait until bronze holds these sales."""
    _wait(lambda: names <= set(arrived(server).times), guest, "every sale is in bronze")


def status(guest: Guest) -> dict[str, int]:
    """What `scout-agent status --json` says."""
    seen: dict[str, int] = json.loads(guest.run("scout-agent status --json 2>/dev/null", check=False).text)
    return seen


def arrived(server: Server) -> Arrived:
    """What is in bronze, by the server's own database."""
    names, _identities = server.row("transaction_ids")
    gaps, forks, _duplicates, quarantined, _lag_s = server.row("counts")
    return Arrived(Counter(names or ()), gaps, forks, quarantined)


def _wait(happened: Callable[[], bool], guest: Guest, what: str) -> None:
    try:
        until(happened, what, DRAINED_S)
    except AssertionError as late:
        journal = guest.run("journalctl --unit scout-agent --lines 30 --no-pager --output cat", check=False)
        raise AssertionError(f"{late}\n{journal.text}") from None
