"""Ansible as an operator runs it, watched: what it printed, what it counted, and every command line of meanwhile."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from house import PROGRAMS, Server
from shops import ACCOUNT, ShopMachine

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "deploy" / "ansible"
RUN_S = 600
WAVES = [1, "100%"]
SPARE = 9
"""A port of loopback where nobody answers."""
_RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    exit_status: int
    output: str

    def count(self, name: str, what: str) -> int:
        """How many tasks of a host were `changed`, `failed`, `unreachable`; 0 for a host that had no turn."""
        counted = dict(_RECAP.findall(self.output)).get(name, "")
        return int(dict(pair.split("=") for pair in counted.split()).get(what, "0"))


@dataclass
class Operator:
    """Somebody with the playbooks, an inventory of all shops, and a back office."""

    home: Path
    server: Server
    packages: Path
    shops: Sequence[ShopMachine]
    key_file: Path
    output: list[str] = field(default_factory=list)
    command_lines: set[bytes] = field(default_factory=set)

    @property
    def codes(self) -> set[str]:
        """Every code that the back office has given out."""
        file = self.home / "codes"
        return {json.loads(line)["code"] for line in file.read_text().splitlines()} if file.exists() else set()

    def play(self, playbook: str, *options: str, version: str = "0.1.0", **variables: Any) -> Outcome:
        """Run a playbook on all shops; `variables` are the fleet's, `scout_agent_` left out."""
        inventory = self.home / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(version, variables)))
        waves = json.dumps({"scout_agent_waves": WAVES})
        command = [PROGRAMS / "ansible-playbook", "-vv", "-i", inventory, "-e", waves, playbook, *options]
        with _Watch(self.command_lines):
            done = subprocess.run(
                command,
                cwd=FOLDER,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=RUN_S,
                stdin=subprocess.DEVNULL,
            )
        self.output.append(done.stdout + done.stderr)
        return Outcome(done.returncode, self.output[-1])

    def office(self, *words: str) -> Any:
        """What scout-server says, as JSON."""
        return json.loads(self.server.command(*words, "--json"))

    def _environment(self) -> dict[str, str]:
        """Nothing of this test's own; a short path, for SSH's sockets lie below it."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def _inventory(self, version: str, variables: dict[str, Any]) -> dict[str, Any]:
        fleet = {
            "version": version,
            "server": self.server.base_url,
            "packages": str(self.packages),
            "server_program": str(self._program()),
            "server_environment": {"SCOUT_DATA": str(self.server.data)},
            "starts_within_s": 45,
            "heard_within_s": 45,
            "config": {"heartbeat": {"interval_s": 1.0}, "batch": {"age_max_s": 0.5}, "folder": {"settle_s": 0.2}},
            **variables,
        }
        reach = {
            "ansible_host": "127.0.0.1",
            "ansible_user": ACCOUNT,
            "ansible_ssh_private_key_file": str(self.key_file),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }
        office = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        closed = {"ansible_host": "127.0.0.1", "ansible_port": SPARE}
        return {
            "back_office": {"hosts": {"office": office, "closed": closed}},
            "scout_agents": {
                "vars": reach | {f"scout_agent_{name}": value for name, value in fleet.items()},
                "hosts": {shop.name: {"ansible_port": shop.port} for shop in self.shops},
            },
        }

    def _program(self) -> Path:
        """Scout-server, and a note of each code that it gives out."""
        program, codes = self.home / "scout-server", shlex.quote(str(self.home / "codes"))
        real = shlex.quote(str(PROGRAMS / "scout-server"))
        program.write_text(
            f'#!/bin/sh\ncase "$1 $2" in "devices code") {real} "$@" | tee -a {codes} ;; *) exec {real} "$@" ;; esac\n'
        )
        program.chmod(0o755)
        return program


class _Watch:
    """Notes every command line of this machine, and of all that are booted on it, until it ends."""

    def __init__(self, seen: set[bytes]) -> None:
        self._seen = seen
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for command_line in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self._seen.add(command_line.read_bytes())
