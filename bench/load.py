"""What a load generator saw, for tests and benches; and a server's memory and time, as Linux counts them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from server import tokens
from server.config import now

GENERATOR = Path(__file__).parent / "load_generator.py"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. Status 0: the connection broke."""

    number: int
    status: int
    latency_ms: float  # from the moment it was due
    wait_s: int | None  # Retry-After


@dataclass(frozen=True, slots=True)
class Load:
    """What became of all of them."""

    answers: tuple[Answer, ...]
    unsent: int

    def of(self, *statuses: int) -> list[Answer]:
        """The answers with one of these statuses."""
        return [answer for answer in self.answers if answer.status in statuses]

    def percentile_ms(self, percent: float) -> float:
        """The latency that so many percent of the accepted stay within."""
        latencies = sorted(answer.latency_ms for answer in self.of(200))
        return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))]


def devices(dsn: str, secret: str, count: int, file: Path) -> None:
    """Make devices known, and write a token of each into a file."""
    with psycopg.connect(dsn) as connection:  # one commit for all of them
        issued = []
        for number in range(count):
            name = f"load-{number}"
            tokens.add_device(connection, name)
            issued.append(tokens.issue(connection, secret, name, tokens.EDGE_UPLOADER, days=1, now=now()))
    file.touch(mode=0o600)
    file.write_text("\n".join(issued))


def generate(url: str, tokens_file: Path, **options: float | str) -> Load:
    """Run the load generator to its end; keywords are its options."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(GENERATOR), "--url", url, "--tokens", str(tokens_file), *given]
    seen = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return Load(tuple(Answer(*answer) for answer in seen["answers"]), seen["unsent"])


def forget_peak(pid: int) -> None:
    """Let the peak of a process's memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most memory that a process held since then."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def processor_s(pid: int) -> float:
    """The time that a process spent on processors, its ended children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
