"""The daemon as a service manager sees it, on a real notification socket and without systemd."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from agent_kit import FakeServer, environment, marked_token, sale, token_parts, until, write_config
from listener import Listener

from agent.logs import is_journal, set_up_logs
from agent.systemd import Manager

MARKER = "Maria Clara"
TESTS = Path(__file__).resolve().parents[1]
QUICK = {
    "batch": {"age_max_s": 0.05},
    "heartbeat": {"interval_s": 0.2},
    "upload": {"retry_wait_max_s": 0.2, "connect_timeout_s": 0.3, "stall_timeout_s": 0.3},
    "folder": {"settle_s": 0.2},
}


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a listener on a socket in the file system, by a path short enough for one."""
    with tempfile.TemporaryDirectory() as folder:
        opened = Listener(f"{folder}/notify")
        yield opened
        opened.close()


class Service:
    """A daemon started as a service manager does, with a watchdog of one second and a narrow umask."""

    def __init__(self, config: Path, listener: Listener, watchdog_s: float = 1.0) -> None:
        told = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": str(int(watchdog_s * 1_000_000))}
        self.log = config.parent / "daemon.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(TESTS / "hanging_agent.py"), "run", "--config", str(config)],
                stderr=log,
                env=environment() | told,
                umask=0o027,
            )

    def events(self) -> list[str]:
        """Names of the events logged so far."""
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def url(server: FakeServer) -> str:
    """Return where the daemon delivers."""
    return server.url


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    """Return a config for a quick agent, with folder and token in place."""
    (tmp_path / "sales").mkdir()
    (tmp_path / "token").write_text(marked_token(MARKER))
    return write_config(tmp_path, url, **QUICK)


@pytest.fixture
def service(config: Path, listener: Listener) -> Iterator[Service]:
    """Run the daemon; it is ended if it still runs."""
    started = Service(config, listener)
    yield started
    started.process.kill()
    started.process.wait()


def test_systemd_hears_ready_then_the_state_in_words_then_stopping(
    config: Path, listener: Listener, service: Service, server: FakeServer
) -> None:
    """READY comes first and STOPPING last; between them the backlog, as a person would say it."""
    server.answer = lambda _path, _body: (503, b"")
    until(lambda: "READY=1" in listener.listen(), "it is ready though the server answers nothing useful")
    (config.parent / "sales" / "day.jsonl").write_bytes(sale(1) + b"\n" + sale(2) + b"\n")
    until(lambda: "STATUS=2 sales wait to be sent, 0 for their receipt." in listener.listen(), "the backlog")
    server.answer = lambda _path, _body: None
    until(lambda: listener.listen()[-1] == "STATUS=Every sale is delivered and receipted.", "all is delivered")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    heard = listener.listen()

    assert heard[0] == "READY=1"
    assert heard[-1] == "STOPPING=1"
    assert heard.count("WATCHDOG=1") >= 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1"])
def test_an_offline_daemon_feeds_the_watchdog(config: Path, listener: Listener, service: Service) -> None:
    """Connections that nobody accepts, for longer than a hang would be allowed to last, are life."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    config.with_name("sales").joinpath("day.jsonl").write_bytes(sale(1) + b"\n")
    until(lambda: "file_taken" in service.events(), "a sale waits")
    before = listener.listen().count("WATCHDOG=1")
    until(lambda: listener.listen().count("WATCHDOG=1") >= before + 9, "three watchdogs long")

    assert "batch_not_sent" in service.events()
    assert "loop_hung" not in service.events()


def test_a_hung_loop_starves_the_watchdog_and_shows_where_it_stands(
    config: Path, listener: Listener, service: Service
) -> None:
    """The stacks of all threads, no value among them; the other loop goes on; and getting on is forgiven."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    sales = config.parent / "sales"
    (sales / "day.jsonl").write_bytes(sale(1, customer=MARKER) + b"\n")
    until(lambda: "batches_settled" in service.events(), "it works")
    (sales / ".hang").touch()
    until(lambda: "loop_hung" in service.events(), "the hang is seen")
    fed = listener.listen().count("WATCHDOG=1")
    states = len(listener.listen())
    until(lambda: len(listener.listen()) >= states + 6, "two more watchdogs long, it tells its state")
    log = service.log.read_text()

    assert listener.listen().count("WATCHDOG=1") == fed
    assert service.events().count("loop_hung") == 1
    assert 'hanging_agent.py", line' in log
    assert "delivery.py" in log or "daemon.py" in log
    assert MARKER not in log
    assert not any(part in log for part in token_parts((config.parent / "token").read_text()))


def test_a_dead_loop_ends_the_daemon_with_an_error(config: Path, listener: Listener, service: Service) -> None:
    """So that systemd starts it anew instead of watching half of it."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    (config.parent / "sales" / ".die").touch()

    assert service.process.wait(20) == 1
    assert "nobody foresaw this" in service.log.read_text()


def test_a_daemon_that_begins_anew_over_a_damaged_spool_does_not_say_that_it_stops(
    config: Path, listener: Listener, service: Service, server: FakeServer
) -> None:
    """Or systemd would kill the very process that goes on, as one that doesn't come to its end."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    for name in ("spool.db", "spool.db-wal"):
        with (config.parent / "spool" / name).open("r+b") as file:
            file.write(b"noise" * (os.fstat(file.fileno()).st_size // 5))
    (config.parent / "sales" / "day.jsonl").write_bytes(sale(1) + b"\n")
    until(lambda: listener.listen().count("READY=1") == 2, "it began anew")
    until(lambda: server.numbers() == [1], "it works on")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0

    assert [line for line in listener.listen() if line in ("READY=1", "STOPPING=1")] == [*2 * ["READY=1"], "STOPPING=1"]


def test_a_reload_that_allows_more_time_is_no_hang(
    config: Path, listener: Listener, service: Service, server: FakeServer
) -> None:
    """Or the watchdog would kill what only waits for as long as the config now says."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    write_config(config.parent, server.url, **QUICK | {"upload": QUICK["upload"] | {"stall_timeout_s": 3.0}})
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "config_reloaded" in service.events(), "the config is in force")
    server.hang.set()
    assert server.hanging.wait(20)
    until(lambda: {"heartbeat_not_answered", "batch_not_sent"} & set(service.events()), "the stall is over")

    assert "loop_hung" not in service.events()


@pytest.mark.usefixtures("service")
def test_everybody_may_read_how_it_is_whatever_the_umask(config: Path, listener: Listener) -> None:
    """As in the unit, which lets nobody else read what the service writes."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    spool = config.parent / "spool"
    until((spool / "status.json").exists, "it is published, which is not waited for before READY")

    assert (spool / "status.json").stat().st_mode & 0o777 == 0o644
    assert (spool / "spool.db").stat().st_mode & 0o777 == 0o640


def test_sighup_makes_both_loops_look_again_and_ends_nothing(
    config: Path, listener: Listener, service: Service, server: FakeServer
) -> None:
    """What systemctl reload sends."""
    until(lambda: "READY=1" in listener.listen(), "it runs")
    service.process.send_signal(signal.SIGHUP)
    (config.parent / "sales" / "day.jsonl").write_bytes(sale(1) + b"\n")
    until(lambda: server.numbers() == [1], "it works on")

    assert service.process.poll() is None


def test_without_systemd_nothing_is_told_and_nothing_fails(tmp_path: Path) -> None:
    """No address, or one where nobody listens any more."""
    silent = Manager({})
    silent.tell("READY=1")
    deserted = Manager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with structlog.testing.capture_logs() as logs:
        deserted.tell("READY=1")

    assert (silent.listens, deserted.listens) == (False, True)
    assert [entry["event"] for entry in logs] == ["systemd_not_told"]


@pytest.mark.parametrize("address", ["{folder}/notify", "@scout-edge-test-{pid}"])
def test_a_state_of_several_lines_stays_one_assignment(address: str) -> None:
    """Or a message could forge another one; on a socket in the file system and on one that has only a name."""
    with tempfile.TemporaryDirectory() as folder:
        listener = Listener(address.format(folder=folder, pid=os.getpid()))
        Manager({"NOTIFY_SOCKET": listener.address}).tell("STATUS=odd\nMAINPID=1", "READY=1")
        heard = listener.listen()
        listener.close()

    assert heard == ["STATUS=odd MAINPID=1", "READY=1"]


@pytest.mark.parametrize(
    ("environment_of_systemd", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_names_us(
    environment_of_systemd: dict[str, str], watchdog_s: float | None
) -> None:
    """A process started by a watched one is not watched itself."""
    assert Manager(environment_of_systemd).watchdog_s == watchdog_s


def test_the_journal_gets_json_with_priorities(tmp_path: Path) -> None:
    """Levels as syslog counts them, in front of one JSON object a line; elsewhere the object alone."""
    before = structlog.get_config()
    with (tmp_path / "journal").open("w+") as stream, (tmp_path / "file").open("w+") as other:
        status = os.fstat(stream.fileno())
        variables = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        try:
            set_up_logs(stream, variables)
            for level in ("debug", "info", "warning", "error", "critical"):
                getattr(structlog.get_logger(), level)("seen", number=1)
            set_up_logs(other, variables)
            structlog.get_logger().warning("seen")
        finally:
            structlog.configure(**before)
        stream.seek(0)
        other.seek(0)
        lines, elsewhere = stream.read().splitlines(), other.read()
        told = is_journal(stream, variables), is_journal(other, variables), is_journal(stream, {})

    assert told == (True, False, False)
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert {json.loads(line[3:])["event"] for line in lines} == {"seen"}
    assert json.loads(elsewhere)["level"] == "warning"
