"""A machine with a real systemd: a Debian root, or this machine's own tree, booted by systemd-nspawn.

May be relied on: the tree is only looked at, through an overlay in memory, so that one unpacked root serves many
machines; and whatever was mounted or started is gone after the `with`, or with the test that was killed. It shares
this machine's network, so that a test's server on loopback is the machine's server too.
"""

import json
import shlex
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_kit import until

BOOT_S = 60.0
VARIABLES = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
"""What a command finds inside, and nothing of the test's own."""


@dataclass(frozen=True)
class Machine:
    """A booted machine: its tree as seen from outside, and its first process."""

    tree: Path
    leader: int

    def run(self, command: str, *, check: bool = True, timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
        """Run a command line as root inside."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--", *shlex.split(command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=VARIABLES,
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
def a_machine(
    home: Path,
    tree: Path = Path("/"),
    *,
    target: str = "multi-user.target",
    prepare: Callable[[Path], object] = lambda _tree: None,
    binds: Mapping[str, Path] | None = None,
    is_alone: bool = False,
) -> Iterator[Machine]:
    """Boot a root to a target; `home` holds what it needs for as long as it runs.

    `prepare` may write to the tree before it is booted; `binds` shows folders of this machine read-only, by their paths
    inside. `is_alone`: it has a loopback of its own, and no other network.
    """
    mounts = home / "memory"
    mounts.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "scout-edge-test", str(mounts)], check=True)
    try:
        above = _overlay(tree, mounts)
        prepare(above)
        command = _command(above, target, binds or {}, is_alone=is_alone)
        with (home / "console").open("wb") as console:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            machine = Machine(above, _leader(process, home / "console"))
            _wait_for_boot(machine, target)
            yield machine
        finally:
            _power_off(process)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(mounts)], check=True)


def _overlay(tree: Path, mounts: Path) -> Path:
    """A tree to write to, and a machine of its own: an id, so that systemd doesn't take it for its first boot."""
    for name in ("upper", "work", "tree"):
        (mounts / name).mkdir()
    above = mounts / "tree"
    options = f"lowerdir={tree},upperdir={mounts}/upper,workdir={mounts}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(above)], check=True)
    (above / "etc/machine-id").unlink(missing_ok=True)
    (above / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    return above


def _command(tree: Path, target: str, binds: Mapping[str, Path], *, is_alone: bool) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "TERM"),
        "systemd-nspawn",
        "--quiet",
        f"--directory={tree}",
        f"--machine=scout-{uuid.uuid4().hex[:8]}",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--console=pipe",
        # nspawn keeps clock calls from its guests; on a shop's machine the agent may read the clock's state.
        "--system-call-filter=adjtimex clock_adjtime",
        *(f"--bind-ro={source}:{inside}" for inside, source in binds.items()),
        *(["--private-network"] if is_alone else []),
        "--boot",
        "--",
        f"--unit={target}",
    ]


def _power_off(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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


def _wait_for_boot(machine: Machine, target: str) -> None:
    def booted() -> bool:
        return machine.run(f"systemctl is-active {target}", check=False).stdout.strip() == "active"

    until(machine.path("/run/systemd/private").exists, "systemd runs", BOOT_S)
    until(booted, "the machine is up", BOOT_S)
