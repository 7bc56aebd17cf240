"""Technicians' commands and the running daemon: real processes, a real config file, real signals."""

import json
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from agent_kit import FakeServer, a_server, until, write_config
from daemons import QUICK, Daemon, drop, run_agent

TOO_LARGE = b'{"statusCode":"413","code":"EntityTooLarge","message":"The object exceeded the maximum allowed size"}'


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Return a config for a quick agent, with folder and token in place."""
    (tmp_path / "sales").mkdir()
    server.is_on_time = True
    return write_config(tmp_path, server.url, **QUICK)


@pytest.fixture
def start(start: Callable[[], Daemon]) -> Callable[[], Daemon]:
    """Give a way to start daemons that work on return."""
    times = count(1)

    def starting() -> Daemon:
        daemon, started = start(), next(times)
        until(lambda: daemon.events().count("agent_started") == started, "it runs")
        return daemon

    return starting


def facts(home: Path) -> dict[str, Any]:
    """What the daemon tells `status`."""
    file = home / "spool" / "status.json"
    until(file.exists, "something is published")
    daemon: dict[str, Any] = json.loads(file.read_text())["daemon"]
    return daemon


def rewrite(home: Path, url: str, **upload: Any) -> None:
    """Replace the config as an editor does."""
    write_config(home, url, **(QUICK | {"upload": QUICK["upload"] | upload}))


def test_pause_and_resume_tell_the_running_daemon(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
) -> None:
    """Over a kill as well; the command says that it was obeyed."""
    daemon = start()
    done = run_agent(config, "pause", "--for", "2h")
    assert (done.returncode, done.stdout) == (0, b"Uploads pause for 2h. The agent obeys.\n")
    daemon.end(signal.SIGKILL)
    start()
    drop(config, "day", 1, 2)
    until(lambda: facts(config.parent)["paused_until"], "it remembers the pause")
    until(lambda: not list((config.parent / "sales").glob("*.jsonl")), "intake goes on")
    assert server.stored == {}
    assert run_agent(config, "send").returncode == 1
    done = run_agent(config, "resume")

    assert (done.returncode, done.stdout) == (0, b"Uploads go on. The agent obeys.\n")
    until(lambda: sorted(server.numbers()) == [1, 2], "the sales arrive")


def test_orders_to_a_dead_daemon_are_obeyed_when_it_starts_and_send_says_how(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
) -> None:
    """`send` can't do what it says, so it does nothing; a pause can wait."""
    daemon = start()
    daemon.end(signal.SIGTERM)
    done = run_agent(config, "send")
    assert done.returncode == 1
    assert b"not running: start it (systemctl start scout-agent)" in done.stderr
    done = run_agent(config, "pause")
    assert b"it obeys then" in done.stdout
    drop(config, "day", 1)
    start()
    until(lambda: facts(config.parent)["paused_until"], "the pause")

    assert server.stored == {}


def test_send_delivers_now_and_reports(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
) -> None:
    """Past backoff and age; with the server down it says why not."""
    write_config(config.parent, server.url, **(QUICK | {"batch": {"age_max_s": 3600.0}, "upload": {}}))
    start()
    drop(config, "day", 1, 2, 3)
    until(lambda: not list((config.parent / "sales").rglob("*.jsonl")), "they are in the spool")
    done = run_agent(config, "send")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == b"3 sales to send"
    assert done.stdout.splitlines()[-1] == b"Delivered."
    assert sorted(server.numbers()) == [1, 2, 3]

    server.answer = lambda path, _body: None if "heartbeat" in path else (503, b"")
    drop(config, "later", 4)
    until(lambda: not list((config.parent / "sales").rglob("*.jsonl")), "it is in the spool")
    refused = run_agent(config, "send")
    assert refused.returncode == 1
    assert b"answered 503" in refused.stderr


def test_what_was_set_aside_is_listed_and_replayed(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
) -> None:
    """With key, rows, refusals, reason and since when."""
    server.answer = lambda path, _body: None if "heartbeat" in path else (400, TOO_LARGE)
    start()
    drop(config, "day", 1, 2)

    def listed() -> list[dict[str, Any]]:
        batches: list[dict[str, Any]] = json.loads(run_agent(config, "set-aside", "list", "--json").stdout)["batches"]
        return batches

    until(lambda: (config.parent / "spool" / "spool.db").exists() and listed(), "it is set aside")
    (batch,) = listed()
    shown = run_agent(config, "set-aside", "list").stdout.decode()
    assert (batch["rows"], batch["refusals"]) == (2, 5)
    assert batch["since"]
    assert "413" in batch["reason"]
    assert batch["key"] in shown
    assert run_agent(config, "set-aside", "replay", "another").returncode == 1
    server.answer = lambda _path, _body: None
    done = run_agent(config, "set-aside", "replay", batch["key"])

    assert done.stdout == b"1 batches are tried again. The agent obeys.\n"
    until(lambda: sorted(server.numbers()) == [1, 2], "it arrives")
    assert run_agent(config, "set-aside", "list").stdout == b"Nothing is set aside.\n"


@pytest.mark.parametrize("duration", ["soon", "25h"])
def test_a_duration_that_is_none_is_wrong_usage(config: Path, duration: str) -> None:
    """And pauses nothing."""
    done = run_agent(config, "pause", "--for", duration)

    assert done.returncode == 64
    assert b"30m or 2h" in done.stderr


@pytest.mark.parametrize("nudge", ["file", "hangup"])
def test_a_new_config_is_in_force_without_a_restart(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
    nudge: str,
) -> None:
    """Another server and another folder; what is refused is shown and changes nothing."""
    daemon = start()
    with a_server() as other:
        rewrite(config.parent, other.url, mode="never")
        until(lambda: facts(config.parent)["config_refused"], "the refusal")
        assert "upload.mode" in facts(config.parent)["config_refused"]
        drop(config, "before", 1)
        until(lambda: server.numbers() == [1], "the old config works on")
        new_folder = config.parent / "other"
        write_config(config.parent, other.url, **(QUICK | {"folder": {"path": str(new_folder), "settle_s": 0.2}}))
        if nudge == "hangup":
            daemon.process.send_signal(signal.SIGHUP)
        until(new_folder.is_dir, "the new folder")
        (new_folder / "after.json.tmp").write_bytes(b'{"transaction_id":"t-2"}')
        (new_folder / "after.json.tmp").rename(new_folder / "after.json")
        until(lambda: other.numbers() == [2], "the new config works")
        until(lambda: facts(config.parent)["config_refused"] is None, "the refusal is over")
        assert daemon.end(signal.SIGTERM) == 0

    assert daemon.events().count("agent_started") == 1
    assert server.numbers() == [1]


def test_an_order_wakes_a_daemon_that_has_nothing_to_do(
    config: Path,
    start: Callable[[], Daemon],
    server: FakeServer,
) -> None:
    """A technician does not wait for the next look, a minute away."""
    slow = QUICK | {"batch": {"age_max_s": 3600.0}, "heartbeat": {"interval_s": 3600.0}}
    write_config(config.parent, server.url, **slow)
    start()
    until(lambda: server.requests, "the first call home")
    before_s = time.monotonic()
    run_agent(config, "pause", "--for", "1h")

    assert time.monotonic() - before_s < 30.0
    until(lambda: facts(config.parent)["paused_until"], "it is published")
