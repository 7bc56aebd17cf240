"""The agent of this checkout as a package would install it, in a machine that is this one's own tree."""

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_kit import a_token
from machine import Machine, a_machine

CHECKOUT = Path(__file__).resolve().parents[2]
UNIT = CHECKOUT / "systemd" / "scout-agent.service"
SYSUSERS = CHECKOUT / "systemd" / "scout-agent.sysusers.conf"
HOUSE = "/opt/scout-edge-test"
TILL = "games"
"""The account of the till's software: one that any Debian has and that is not the agent's."""


@contextmanager
def a_machine_with_the_agent(home: Path) -> Iterator[Machine]:
    """Boot with program and account in place; `write_agent` does the rest."""
    sources = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib"), "checkout": CHECKOUT}
    binds = {f"{HOUSE}/{name}": Path(source) for name, source in sources.items()}
    with a_machine(home, target="basic.target", prepare=_install, binds=binds) as machine:
        machine.run("systemd-sysusers")
        yield machine


def write_agent(machine: Machine, url: str, *, impatient: bool = False, watchdog_s: float = 90.0) -> None:
    """Put config, token and folder in place, as whoever installs it does."""
    machine.run(f"install -d -o {TILL} -g scout-agent -m 2770 /var/lib/till/sales")
    machine.run("install -d -o scout-agent -g scout-agent -m 0750 /var/lib/scout-agent")
    machine.path("/etc/scout-agent").mkdir(exist_ok=True)
    machine.path("/etc/scout-agent/config.toml").write_text(
        f"""
        device.id = "pi-05"
        server.base_url = "{url}"
        folder = {{ path = "/var/lib/till/sales", settle_s = 0.2 }}
        batch.age_max_s = 0.1
        heartbeat.interval_s = 0.3
        upload = {{ retry_wait_max_s = 0.3, connect_timeout_s = 0.5, stall_timeout_s = {0.5 if impatient else 60.0} }}
        """
    )
    token = machine.path("/var/lib/scout-agent/token")
    token.write_text(a_token())
    token.chmod(0o644)
    program = f"{HOUSE}/hanging-agent" if impatient else "/usr/bin/scout-agent"
    drop_in = machine.path("/run/systemd/system/scout-agent.service.d/test.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Service]\nWatchdogSec={watchdog_s}s\nRestartSec=100ms\nExecStart=\nExecStart={program} run\n")
    machine.run("systemctl daemon-reload")


def remove_agent(machine: Machine) -> None:
    """Stop the agent and leave nothing of it."""
    machine.run("systemctl stop scout-agent")
    machine.run("systemctl reset-failed scout-agent", check=False)
    machine.run("rm -rf /var/lib/scout-agent /var/lib/till /etc/scout-agent /run/systemd/system/scout-agent.service.d")
    machine.run("journalctl --rotate --vacuum-time=1s")


def _install(tree: Path) -> None:
    _write(tree / "usr/lib/systemd/system/scout-agent.service", UNIT.read_text())
    _write(tree / "usr/lib/sysusers.d/scout-agent.conf", SYSUSERS.read_text())
    _write(tree / "usr/bin/scout-agent", _launcher("-m agent"), mode=0o755)
    _write(tree / HOUSE[1:] / "hanging-agent", _launcher(f"{HOUSE}/checkout/tests/hanging_agent.py"), mode=0o755)
    _write(tree / HOUSE[1:] / "probe", _launcher(f"{HOUSE}/checkout/tests/service/probe.py"), mode=0o755)


def _launcher(what: str) -> str:
    """A script that starts this very Python, under /opt: an interpreter in a home is out of a service's reach."""
    python = f"{HOUSE}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    variables = f"PYTHONPATH={HOUSE}/checkout:{HOUSE}/packages LD_LIBRARY_PATH={HOUSE}/python/lib"
    return f'#!/bin/sh\n{variables} PYTHONDONTWRITEBYTECODE=1 exec {python} {what} "$@"\n'


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
