"""A machine with a real systemd: this one's own tree under an overlay in memory, booted by systemd-nspawn.

May be relied on: nothing of the running machine is changed, and whatever was mounted or started is gone after the
`with`. It shares this machine's network, so that a test's server on loopback is the machine's server too.
"""

import json
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_kit import a_token, until

CHECKOUT = Path(__file__).resolve().parents[2]
UNIT = CHECKOUT / "systemd" / "scout-agent.service"
SYSUSERS = CHECKOUT / "systemd" / "scout-agent.sysusers.conf"
HOUSE = "/opt/scout-edge-test"
BOOT_S = 60.0
TILL = "games"
"""The account of the till's software: one that any Debian has and that is not the agent's."""


@dataclass(frozen=True)
class Machine:
    """A booted machine: its tree as seen from outside, and its first process."""

    tree: Path
    leader: int

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line as root inside."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--", *shlex.split(command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def path(self, inside: str) -> Path:
        """Where a file of the machine can be reached from outside, whatever is mounted inside."""
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def show(self, unit: str, *properties: str) -> list[str]:
        """Values of a unit's properties, in the order asked for."""
        text = self.run(f"systemctl show {unit} " + " ".join(f"-p {name}" for name in properties)).stdout
        values = dict(line.split("=", 1) for line in text.splitlines())
        return [values[name] for name in properties]

    def journal(self, unit: str, *options: str) -> list[dict[str, str]]:
        """What a unit logged, as the journal keeps it."""
        text = self.run(f"journalctl --unit {unit} --output json --no-pager " + " ".join(options)).stdout
        return [json.loads(line) for line in text.splitlines()]

    def events(self, unit: str, *options: str) -> list[str]:
        """Names of the events that a unit logged."""
        messages = [entry["MESSAGE"] for entry in self.journal(unit, *options)]
        return [json.loads(message)["event"] for message in messages if message.startswith('{"')]


@contextmanager
def a_machine(home: Path) -> Iterator[Machine]:
    """Boot; `home` holds what it needs for as long as it runs."""
    mounts = home / "memory"
    mounts.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "scout-edge-test", str(mounts)], check=True)
    try:
        tree = _tree(mounts)
        with (home / "console").open("wb") as console:
            process = subprocess.Popen(_command(tree), stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            machine = Machine(tree, _leader(process, home / "console"))
            _wait_for_boot(machine)
            machine.run("systemd-sysusers")
            yield machine
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(mounts)], check=True)


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


def _tree(mounts: Path) -> Path:
    """An overlay above this machine's tree, with the agent installed in it."""
    for name in ("upper", "work", "tree"):
        (mounts / name).mkdir()
    tree = mounts / "tree"
    options = f"lowerdir=/,upperdir={mounts}/upper,workdir={mounts}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(tree)], check=True)
    (tree / "etc/machine-id").unlink(missing_ok=True)
    _write(tree / "usr/lib/systemd/system/scout-agent.service", UNIT.read_text())
    _write(tree / "usr/lib/sysusers.d/scout-agent.conf", SYSUSERS.read_text())
    _write(tree / "usr/bin/scout-agent", _launcher("-m agent"), mode=0o755)
    _write(tree / HOUSE[1:] / "hanging-agent", _launcher(f"{HOUSE}/checkout/tests/hanging_agent.py"), mode=0o755)
    _write(tree / HOUSE[1:] / "probe", _launcher(f"{HOUSE}/checkout/tests/service/probe.py"), mode=0o755)
    for name in ("python", "packages", "checkout"):
        (tree / HOUSE[1:] / name).mkdir()
    return tree


def _launcher(what: str) -> str:
    """A script that starts this very Python, under /opt: an interpreter in a home is out of a service's reach."""
    python = f"{HOUSE}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    variables = f"PYTHONPATH={HOUSE}/checkout:{HOUSE}/packages LD_LIBRARY_PATH={HOUSE}/python/lib"
    return f'#!/bin/sh\n{variables} PYTHONDONTWRITEBYTECODE=1 exec {python} {what} "$@"\n'


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _command(tree: Path) -> list[str]:
    binds = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib"), "checkout": str(CHECKOUT)}
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={tree}",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--console=pipe",
        # nspawn keeps clock calls from its guests; on a shop's machine the agent may read the clock's state.
        "--system-call-filter=adjtimex clock_adjtime",
        *(f"--bind-ro={source}:{HOUSE}/{name}" for name, source in binds.items()),
        "--boot",
        "--",
        "--unit=basic.target",
    ]


def _leader(process: subprocess.Popen[bytes], console: Path) -> int:
    """The machine's first process: that child of nspawn that became systemd. Others only prepare it."""
    found: list[int] = []

    def is_there() -> bool:
        assert process.poll() is None, console.read_text(errors="replace")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found[:] = [int(child) for child in children if _name_of(child) == "systemd"]
        return bool(found)

    until(is_there, "nspawn starts systemd", BOOT_S)
    return found[0]


def _name_of(process: str) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _wait_for_boot(machine: Machine) -> None:
    def booted() -> bool:
        return machine.run("systemctl is-active basic.target", check=False).stdout.strip() == "active"

    until(machine.path("/run/systemd/private").exists, "systemd runs", BOOT_S)
    until(booted, "the machine is up", BOOT_S)
