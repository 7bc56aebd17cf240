"""The program itself: real processes, signals, locks and sockets."""

import json
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_kit import FakeServer, marked_token, numbers_in, sale, token_parts, until, write_config
from daemons import MARKER, QUICK, Daemon, drop, look, run_agent

from agent.daemon import STOP_WITHIN_S


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Return a config for a quick agent, with folder and token in place."""
    (tmp_path / "sales").mkdir()
    (tmp_path / "token").write_text(marked_token(MARKER))
    server.is_on_time = True
    return write_config(tmp_path, server.url, **QUICK)


def _until_running(daemon: Daemon, times: int) -> None:
    until(lambda: daemon.events().count("agent_started") == times, "it runs")


def test_a_file_becomes_a_receipt(config: Path, start: Callable[[], Daemon], server: FakeServer) -> None:
    """The daemon as it is run in a shop; neither token nor customer is in its log, and it stops at SIGTERM."""
    daemon = start()
    drop(config, "day", 1, 2, 3)
    (config.parent / "sales" / "bad.jsonl").write_bytes(b'{"customer":"%s"\n' % MARKER.encode())
    until(lambda: sorted(server.numbers()) == [1, 2, 3], "the sales arrive")
    until(lambda: look(config)[1]["rows_settled"] == 3, "the receipt arrives")
    until(lambda: "line_rejected" in daemon.events(), "the bad line is refused")
    code, status = look(config)
    assert (code, status["running"], status["rejected_files"]) == (1, True, 1)
    server.answer = lambda _path, _body: (401, b"{}")
    until(lambda: "credentials_refused" in daemon.events(), "a refusal")
    until(lambda: look(config)[1]["last_fault"], "the daemon publishes it")
    code, status = look(config)
    assert status["last_fault"]["kind"] == "credentials"  # type: ignore[index]
    assert daemon.end(signal.SIGTERM) == 0
    log = daemon.log.read_text()

    assert {"agent_started", "file_taken", "batch_uploaded", "batches_settled", "agent_stopped"} <= set(daemon.events())
    for secret in [MARKER, *token_parts((config.parent / "token").read_text())]:
        assert secret not in log
        assert secret not in json.dumps(status)
    assert "Traceback" not in log


def test_a_hanging_server_delays_the_stop_only_so_long_and_costs_nothing(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """What was being sent is sent again under the same name."""
    server.hang.set()
    daemon = start()
    drop(config, "day", 1, 2)
    assert server.hanging.wait(20)
    until(lambda: look(config)[1]["rows_not_sent"] == 2, "the sales are in the spool")
    before = time.monotonic()
    assert daemon.end(signal.SIGTERM) == 0
    assert time.monotonic() - before < STOP_WITHIN_S + 3
    server.hang.clear()
    server.stored.clear()
    start()
    until(lambda: look(config)[1]["rows_settled"] == 2, "the receipt arrives")

    assert sorted(server.numbers()) == [1, 2]


def test_kills_while_files_arrive_and_the_server_fails_lose_and_double_nothing(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """SIGKILL at random moments; every batch that arrives is the same bytes under one name."""
    rng, made = random.Random(5), 0
    for life in range(8):
        server.answer = (lambda _path, _body: (503, b"")) if life % 3 == 1 else (lambda _path, _body: None)
        daemon = start()
        _until_running(daemon, times=life + 1)
        for _ in range(rng.randrange(2, 8)):
            drop(config, f"file-{made}", made, made + 1)
            made += 2
            threading.Event().wait(rng.random() * 0.03)
        daemon.end(signal.SIGKILL)
    server.answer = lambda _path, _body: None
    start()
    until(lambda: sorted(server.numbers()) == list(range(made)), "all sales arrive, once")
    until(lambda: look(config)[1]["rows_settled"] == made, "and are settled")
    assert made > 30


def test_only_one_daemon_runs_on_a_spool(config: Path, start: Callable[[], Daemon]) -> None:
    """The second says so; after a SIGKILL of the first there is nothing to clean up."""
    first = start()
    until(lambda: "agent_started" in first.events(), "it runs")
    second = run_agent(config, "run")
    assert second.returncode == 1
    assert b"another scout-agent runs on this spool" in second.stderr
    first.end(signal.SIGKILL)
    third = start()
    until(lambda: third.events().count("agent_started") == 2, "it runs again")


def test_status_works_with_the_daemon_dead_and_alive(config: Path, start: Callable[[], Daemon]) -> None:
    """2 while there is nothing, 2 while nobody runs, 0 when all is well; what it shows is the spool's own."""
    code, status = look(config)
    assert (code, status["running"], status["rows_not_sent"]) == (2, False, 0)
    assert not (config.parent / "spool" / "spool.db").exists()
    run_agent(config, "add", "-", given=sale(1))
    code, status = look(config)
    assert (code, status["running"], status["rows_not_sent"]) == (2, False, 1)
    daemon = start()
    until(lambda: look(config)[0] == 0, "all is well")
    text = run_agent(config, "status").stdout.decode()
    assert text.splitlines()[-1].startswith("ALL IS WELL")
    assert daemon.end(signal.SIGINT) == 0
    assert look(config)[0] == 2


def test_add_takes_a_file_or_standard_input_beside_a_running_daemon(
    config: Path, start: Callable[[], Daemon], server: FakeServer, tmp_path: Path
) -> None:
    """Good sales are stored, bad lines are named with file and line, and the exit status tells."""
    start()
    file = tmp_path / "mixed.jsonl"
    file.write_bytes(sale(1) + b"\n" + b'{"customer":"%s"\n' % MARKER.encode() + sale(2) + b"\n")
    mixed = run_agent(config, "add", str(file))
    piped = run_agent(config, "add", "-", given=b"[" + sale(3) + b"," + sale(4) + b"]")
    nothing = run_agent(config, "add", "-")
    missing = run_agent(config, "add", str(tmp_path / "none.json"))
    until(lambda: sorted(server.numbers()) == [1, 2, 3, 4], "they arrive")

    assert (mixed.returncode, piped.returncode, nothing.returncode, missing.returncode) == (1, 0, 0, 1)
    assert mixed.stderr.decode().startswith(f"{file}, line 2: ")
    assert mixed.stdout == b"2 sales stored, 1 refused\n"
    assert piped.stdout == b"2 sales stored\n"
    assert missing.stderr.decode() == f"scout-agent: {tmp_path}/none.json: No such file or directory\n"
    assert MARKER.encode() not in mixed.stdout + mixed.stderr


def test_add_of_jsonl_refuses_a_bad_first_line_and_takes_the_rest(config: Path, tmp_path: Path) -> None:
    """As the folder does: by its name it is a sale a line, whatever the first line holds."""
    file = tmp_path / "sales.jsonl"
    file.write_bytes(b'{"broken":\n' + sale(1) + b"\n" + sale(2) + b"\n")

    added = run_agent(config, "add", str(file))

    assert (added.returncode, added.stdout) == (1, b"2 sales stored, 1 refused\n")
    assert b"sales.jsonl, line 1:" in added.stderr


def test_add_after_a_kill_is_still_there(config: Path) -> None:
    """Once it says stored, it is."""
    for number in range(3):
        assert run_agent(config, "add", "-", given=sale(number)).returncode == 0
    code, status = look(config)

    assert (code, status["rows_not_sent"]) == (2, 3)


@pytest.mark.parametrize(
    "arguments",
    [["sell"], ["add"], ["run", "--quickly"], ["status", "now"], ["config", "chek"], ["add", "-", "-"]],
)
def test_wrong_usage_is_64(config: Path, arguments: list[str]) -> None:
    """So that `status` can use 0, 1 and 2; one sentence, no traceback."""
    done = run_agent(config, *arguments)

    assert done.returncode == 64
    assert done.stderr.startswith(b"scout-agent: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["run"], ["add", "-"], ["config", "check"]])
def test_a_wrong_config_is_one_sentence_and_touches_nothing(config: Path, command: list[str]) -> None:
    """With file and key, before the spool is made."""
    config.write_text(config.read_text().replace("rows_max = 50", "rows_max = 0"))
    done = run_agent(config, *command, given=sale(1))

    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"scout-agent: {config}: batch.rows_max: expected `int` >= 1")
    assert len(done.stderr.splitlines()) == 1
    assert not (config.parent / "spool").exists()


def test_config_check_says_where_everything_is(config: Path) -> None:
    """And that the file is good."""
    done = run_agent(config, "config", "check")

    assert done.returncode == 0
    assert done.stdout.decode().endswith("The config is good.\n")
    assert str(config.parent / "spool" / "spool.db") in done.stdout.decode()
    assert "tail       -\n" in done.stdout.decode()


def test_a_daemon_that_cannot_begin_says_why_in_one_sentence(config: Path) -> None:
    """A spool of another device."""
    run_agent(config, "add", "-", given=sale(1))
    config.write_text(config.read_text().replace('id = "pi-05"', 'id = "pi-06"'))
    done = run_agent(config, "run")

    assert done.returncode == 1
    assert "belongs to device pi-05, not pi-06" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_source_in_trouble_stops_neither_the_other_nor_delivery_and_recovers(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """From the start: `status` says what to mend, the log says it once, and nobody has to restart anything."""
    till, folder = config.parent / "till", config.parent / "sales"
    till.mkdir()
    with config.open("a") as file:
        file.write(f'\n[tail]\npath = "{till}"\n')
    folder.rmdir()
    folder.touch()
    daemon = start()
    (till / "sales.jsonl").write_bytes(sale(1) + b"\n")
    until(lambda: server.numbers() == [1], "the other source's sale arrives")
    until(lambda: look(config)[0] == 2, "it is said")
    status = look(config)[1]
    assert "sales: File exists. Check that the folder under [folder] path" in str(status["broken"])
    assert daemon.events().count("local_fault") == 1
    folder.unlink()
    folder.mkdir()
    drop(config, "day", 2)
    until(lambda: sorted(server.numbers()) == [1, 2], "the sale arrives")
    until(lambda: "local_fault_over" in daemon.events(), "it is over")
    until(lambda: look(config)[0] == 0, "all is well")
    with (till / "sales.jsonl").open("ab") as file:
        file.write(b"oops\n")
    until(lambda: look(config)[1]["rejected_files"] == 1, "what the till wrote wrong is counted")

    assert f"{config.parent}/spool/rejected" in str(look(config)[1]["attention"])
    assert daemon.end(signal.SIGTERM) == 0
    assert "Traceback" not in daemon.log.read_text()


def test_every_sale_in_a_batch_is_the_tills_own_text(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """From file to bucket, byte for byte."""
    text = rb'{"transaction_id" : "t-7", "peso_value": 150.50, "note":"\u0000\/", "a":1, "a":2 }'
    (config.parent / "sales" / "one.json").write_bytes(text)
    start()
    until(lambda: server.numbers() == [7], "it arrives")
    (jsonl,) = server.stored.values()

    assert b'"payload":' + text + b"}" in jsonl
    assert numbers_in(jsonl) == [7]
