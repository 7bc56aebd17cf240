"""What the agent costs a shop's machine while nothing is sold: wake-ups, writes to the card, memory.

`make bench-idle` watches for ten minutes, with the default config and the service's own watchdog. `make test` watches
for some seconds and hurries what comes once in half a minute or in a minute. The server answers and a service manager
listens, so that everything that wakes in a shop wakes here.

The ten minutes are measured as an ordinary account, which the service has too: each time SQLite opens a write-ahead log
as root, and only then, it sets the log's owner anew, and that is written back as a page of the file system's own.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_kit import FakeServer, environment, sale, until, write_config
from listener import Listener

IDLE_S = float(os.environ.get("SCOUT_TEST_IDLE_S", "10"))
IS_HURRIED = IDLE_S < 60
HEARTBEAT_S = 4.0 if IS_HURRIED else 60.0
WATCHDOG_S = 12.0 if IS_HURRIED else 90.0
WAKE_UPS_PER_S_MAX = 1.0
MEMORY_BYTES_MAX = 50_000_000
"""Resident, with Python 3.11 on amd64."""

SETTLED = "STATUS=Every sale is delivered and receipted."
PROGRAM = "from agent.__main__ import main; main()"
HEAVY = (
    "sqlite3",
    "ssl",
    "msgspec",
    "orjson",
    "structlog",
    "httpx",
    "tenacity",
    "jwt",
    "watchdog.observers",
)
MEASURED_IMPORTS = """
import sys
from agent.__main__ import UNNEEDED

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

for name in UNNEEDED:
    sys.modules[name] = None
known = resident()
print(known, "Python itself")
for name in [*sys.argv[1:], "agent.daemon"]:
    __import__(name)
    known, before = resident(), known
    print(known - before, name)
"""


@dataclass(frozen=True)
class Idle:
    """What was seen of a daemon in some idle seconds."""

    wake_ups: dict[str, int]
    bytes_written: int
    memory_bytes: int
    files_changed: set[str]


@pytest.fixture
def daemon(tmp_path: Path, server: FakeServer) -> Iterator[tuple[int, Path]]:
    """Run a daemon that has delivered what there was; give its process id and its home."""
    if not IS_HURRIED and os.geteuid() == 0:
        pytest.fail("run this as an ordinary account, as the service is: SQLite writes a little more for root")
    (tmp_path / "sales").mkdir()
    (tmp_path / "till").mkdir()
    config = write_config(
        tmp_path,
        server.url,
        heartbeat={"interval_s": HEARTBEAT_S},
        tail={"path": str(tmp_path / "till")},
        local_http={"listen": "127.0.0.1:0", "socket": str(tmp_path / "ingest.sock")},
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as runtime:  # where systemd has it: in memory
        listener = Listener(f"{runtime}/notify")
        variables = {
            "NOTIFY_SOCKET": listener.address,
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
            "RUNTIME_DIRECTORY": runtime,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "run", "--config", str(config)],
            stderr=subprocess.DEVNULL,
            env=environment() | variables,
        )
        try:
            until(lambda: "READY=1" in listener.listen(), "it runs")
            (tmp_path / "sales" / "day.jsonl").write_bytes(sale(1) + b"\n")
            (tmp_path / "till" / "till.jsonl").write_bytes(sale(2) + b"\n")
            until(lambda: sorted(server.numbers()) == [1, 2], "it works")
            told = len(listener.listen())
            until(
                lambda: SETTLED in listener.listen()[told:],
                "it is receipted, and all is done",
                WATCHDOG_S + HEARTBEAT_S,
            )
            yield process.pid, tmp_path
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            listener.close()


def _watch(pid: int, home: Path) -> Idle:
    # Written back now, so that touching a page that is still to be written counts too.
    subprocess.run(["sync", "--file-system", str(home)], check=True)
    before = _wake_ups(pid), _bytes_written(pid), _files(home)
    threading.Event().wait(IDLE_S)
    after = _wake_ups(pid), _bytes_written(pid), _files(home)
    return Idle(
        {thread: count - before[0].get(thread, 0) for thread, count in after[0].items()},
        after[1] - before[1],
        _memory_bytes(pid),
        {name for name in before[2].keys() | after[2].keys() if before[2].get(name) != after[2].get(name)},
    )


def _wake_ups(pid: int) -> dict[str, int]:
    """How often each thread left the processor of its own will, to be woken again."""
    status = {task.name: (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()}
    return {thread: _number("voluntary_ctxt_switches", text) for thread, text in status.items()}


def _bytes_written(pid: int) -> int:
    return _number("write_bytes", Path(f"/proc/{pid}/io").read_text())


def _memory_bytes(pid: int) -> int:
    return _number("VmRSS", Path(f"/proc/{pid}/status").read_text()) * 1024


def _number(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found
    return int(found[1])


def _files(home: Path) -> dict[str, tuple[int, int]]:
    """Everything that the agent may write, as it was written last."""
    paths = [path for folder in ("spool", "sales") for path in (home / folder).rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def _memory_by_module() -> list[tuple[str, int]]:
    """What importing the heavier modules adds, each to those before it, and then all the rest of the daemon."""
    command = [sys.executable, "-c", MEASURED_IMPORTS, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    sizes = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return [(name, int(size)) for size, name in sizes]


@pytest.mark.timeout(IDLE_S + 120)
def test_an_idle_agent_hardly_wakes_writes_nothing_and_stays_small(
    daemon: tuple[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """At most one wake-up a second in total, not a byte to the card, 50 MB resident."""
    idle = _watch(*daemon)
    per_s = sum(idle.wake_ups.values()) / IDLE_S
    with capsys.disabled():
        print(f"\nidle for {IDLE_S:.0f} s: {per_s:.2f} wake-ups a second by {len(idle.wake_ups)} threads,", end=" ")
        print(f"{idle.bytes_written} bytes written, {idle.memory_bytes / 1e6:.1f} MB resident; imports:")
        print("\n".join(f"  {size / 1e6:6.1f} MB  {name}" for name, size in _memory_by_module()))

    assert len(idle.wake_ups) >= 3
    assert per_s <= WAKE_UPS_PER_S_MAX
    assert (idle.bytes_written, idle.files_changed) == (0, set())
    assert idle.memory_bytes <= MEMORY_BYTES_MAX


def test_the_resident_agent_carries_no_command_line() -> None:
    """What only paints terminals or parses options would be a quarter of its memory."""
    script = MEASURED_IMPORTS + "print(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment())
    loaded = set(done.stdout.split())

    assert "agent.spool" in loaded
    assert loaded & {"typer", "click", "rich", "pygments", "pydantic", "sqlite_utils", "cryptography"} == set()
