"""The units that keep Prometheus' copy of the service token fresh, on a real systemd."""

import shutil
from collections.abc import Iterator

import pytest
from agent_kit import until
from installed import CHECKOUT
from machine import Machine

from server.files import write_safely
from server.secrets import service_token_file

pytestmark = [pytest.mark.service, pytest.mark.root]

UNITS = ("scout-prometheus-token.path", "scout-prometheus-token.service")
DATA = "/var/lib/scout-server"
COPY = "/etc/prometheus/scout-service-token"


@pytest.fixture
def watched(machine: Machine) -> Iterator[Machine]:
    """Put the units in place, with what Debian's package of Prometheus and a server make; leave nothing of it."""
    for unit in UNITS:
        shutil.copy(CHECKOUT / "deploy" / "prometheus" / unit, machine.path("/etc/systemd/system"))
    machine.run("groupadd --force --system prometheus")
    machine.run(f"install -d -m 0700 {DATA}/secrets /etc/prometheus")
    machine.run("systemctl daemon-reload")
    yield machine
    machine.run("systemctl disable --now " + " ".join(UNITS))
    machine.run(f"rm -rf {DATA} /etc/prometheus /etc/systemd/system/" + " /etc/systemd/system/".join(UNITS))


def test_prometheus_copy_follows_the_token_and_is_for_its_group_alone(watched: Machine) -> None:
    """Whether the token is there already or comes later, and each time that `up` replaces it."""
    token = service_token_file(watched.path(DATA))

    def copied() -> str:
        copy = watched.path(COPY)
        return copy.read_text() if copy.exists() else ""

    watched.run("systemctl enable --now " + " ".join(UNITS))
    nothing_yet = copied()
    for word in ("first", "second", "third"):
        write_safely(token, word.encode(), 0o600)
        until(lambda word=word: copied() == word, f"the {word} is copied")
        until(lambda: watched.show(UNITS[1], "ActiveState") == ["inactive"], "it watches again")
    watched.run(f"systemctl stop {UNITS[0]}")
    write_safely(token, b"while nobody watched", 0o600)
    watched.run("systemctl start " + " ".join(UNITS))
    until(lambda: copied() == "while nobody watched", "a start copies what is there")

    assert nothing_yet == ""
    assert watched.run(f"stat --format '%U %G %a' {COPY}").stdout.strip() == "root prometheus 640"
    assert watched.run(f"stat --format %a {DATA}/secrets/service-token").stdout.strip() == "600"
