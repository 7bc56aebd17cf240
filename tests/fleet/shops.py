"""Shops' machines with a Debian of their own, reached over SSH as an operator reaches them; and what they hold."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_kit import until
from machine import Machine, a_machine
from roots import root_tar, unpacked

ACCOUNT = "pi"
SALES = "/var/lib/till/sales"
NEEDED = ("openssh-server", "sudo")
_SSHD = "Port {port}\nListenAddress 127.0.0.1\nAuthorizedKeysFile /etc/ssh/operator.pub\nUseDNS no\n"


@dataclass(frozen=True)
class ShopMachine:
    """A booted machine that answers on a port of its own."""

    name: str
    port: int
    machine: Machine

    def sell(self, name: str, *sales: bytes) -> None:
        """Hand in a file as a till does."""
        folder = self.machine.path(SALES)
        (folder / f"{name}.tmp").write_bytes(b"".join(sale + b"\n" for sale in sales))
        (folder / f"{name}.tmp").rename(folder / f"{name}.jsonl")

    def status(self) -> dict[str, Any]:
        """What the agent says of itself."""
        seen: dict[str, Any] = json.loads(self.machine.run("scout-agent status --json", check=False).stdout)
        return seen

    def installed(self) -> str:
        """The version that is installed."""
        return self.machine.run("dpkg-query --show --showformat ${Version} scout-agent").stdout

    def config(self) -> str:
        """The config that is in place."""
        return self.machine.path("/etc/scout-agent/config.toml").read_text()

    def secrets(self) -> dict[str, str]:
        """What nobody else may ever read."""
        state = self.machine.path("/var/lib/scout-agent")
        key = re.sub(r"-----[^-]+-----|\s", "", (state / "device-key").read_text())
        return {f"token of {self.name}": (state / "token").read_text().strip(), f"key of {self.name}": key}

    def go_away(self) -> None:
        """Be a shop without power, as far as anybody outside can tell."""
        self.machine.run("systemctl stop scout-agent ssh")
        # Stopped, it lets its conversations go on, and Ansible keeps one open for a minute.
        self.machine.run("pkill --signal KILL sshd", check=False)

    def come_back(self) -> None:
        """Be there again."""
        self.machine.run("systemctl start scout-agent ssh")


@contextmanager
def a_shop(name: str, suite: str, home: Path, public_key: str) -> Iterator[ShopMachine]:
    """Boot a shop's machine that lets in whoever has the key."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def prepare(tree: Path) -> None:
        subprocess.run(["chroot", tree, "useradd", "--create-home", "--shell", "/bin/sh", ACCOUNT], check=True)
        _write(tree / "etc/ssh/sshd_config.d/test.conf", _SSHD.format(port=port))
        _write(tree / "etc/ssh/operator.pub", public_key)
        _write(tree / "etc/sudoers.d/operator", f"{ACCOUNT} ALL=(ALL) NOPASSWD: ALL\n")

    with a_machine(home, root_of(suite, home.parent), prepare=prepare) as machine:
        until(lambda: _answers(port), "the machine answers by SSH")
        yield ShopMachine(name, port, machine)


def root_of(suite: str, home: Path) -> Path:
    """The unpacked root of a suite; the machines look at it through overlays."""
    folder = home / suite
    return folder if folder.exists() else unpacked(root_tar(suite, packages=NEEDED), folder)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as talk:
            return talk.recv(3) == b"SSH"
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
