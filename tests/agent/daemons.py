"""The program as tests run it: real processes on a real config file."""

import json
import subprocess
import sys
from pathlib import Path

from agent_kit import environment, sale

MARKER = "Maria Clara"
QUICK = {
    "batch": {"rows_max": 50, "age_max_s": 0.05},
    "heartbeat": {"interval_s": 0.2},
    "upload": {"retry_wait_max_s": 0.2},
    "folder": {"settle_s": 0.2},
}


def agent_command(config: Path, *arguments: str) -> list[str]:
    """Write the command line as the installed program has it."""
    return [sys.executable, "-c", "from agent.__main__ import main; main()", *arguments, "--config", str(config)]


def run_agent(config: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    command = agent_command(config, *arguments)
    return subprocess.run(command, input=given, capture_output=True, check=False, env=environment())


class Daemon:
    """One running daemon and all that it logged."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.parent / "daemon.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(agent_command(config, "run"), stderr=log, stdout=log, env=environment())

    def events(self) -> list[str]:
        """Names of the events logged so far."""
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end(self, signal_number: int) -> int:
        """End it and wait."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=30)


def drop(config: Path, name: str, *numbers: int) -> None:
    """Hand in a file as a careful till does."""
    temporary = config.parent / "sales" / f"{name}.tmp"
    temporary.write_bytes(b"".join(sale(number, customer=MARKER) + b"\n" for number in numbers))
    temporary.rename(config.parent / "sales" / f"{name}.jsonl")


def look(config: Path) -> tuple[int, dict[str, object]]:
    """Ask `status --json`."""
    done = run_agent(config, "status", "--json")
    fields = json.loads(done.stdout)
    assert fields["exit_status"] == done.returncode
    return done.returncode, fields
