"""`scout-server` as a program of its own, as an operator starts it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

DEADLINE_S = 60
PROGRAM = (sys.executable, "-c", "from server.cli import main; main()")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("SCOUT_", "SUPABASE_", "DATABASE_"))}


def scout_server(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env=CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@dataclass
class Up:
    """A program that runs until stopped; `output` grows as it prints."""

    process: subprocess.Popen[str]
    data: Path
    output: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        """Where it answers, once it is ready."""
        (line,) = [line for line in self.output if "http://" in line]
        return line.split()[-1]

    def client(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.base_url, timeout=DEADLINE_S, trust_env=False)

    def token(self, device_id: str = "pi-05") -> str:
        """A token as an operator gets it."""
        issued = scout_server("tokens", "issue", "--data", self.data, "--name", device_id)
        assert issued.returncode == 0, issued.stderr
        return issued.stdout.strip()

    def service_token(self) -> str:
        """The token that `up` keeps."""
        return (self.data / "secrets" / "service-token").read_text().strip()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def data_folder(place: Path | None = None) -> Iterator[Path]:
    """A folder that PostgreSQL's account can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="scout-test-", dir=place))
    folder.chmod(0o711)
    try:
        yield folder / "data"
    finally:
        shutil.rmtree(folder)


@contextmanager
def started(command: str, data: Path, *arguments: str | Path, **environment: str) -> Iterator[Up]:
    """Start a program and wait until it answers, or has ended."""
    process = subprocess.Popen(
        [*PROGRAM, command, "--listen", "127.0.0.1:0", *map(str, arguments)],
        env=CLEAN | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    program = Up(process, data)
    reader = threading.Thread(target=_read, args=(program,))
    reader.start()
    try:
        assert program.ready.wait(DEADLINE_S), program.output
        yield program
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(DEADLINE_S)
        reader.join(DEADLINE_S)
        assert process.stdout
        process.stdout.close()


def up(data: Path, **environment: str) -> Any:
    """Start `scout-server up`."""
    return started("up", data, "--data", data, **environment)


def _read(program: Up) -> None:
    assert program.process.stdout
    for line in program.process.stdout:
        program.output.append(line)
        if "tokens issue" in line or "answers on" in line:
            program.ready.set()
    program.ready.set()
