"""scout-agent.service on a real systemd: what a shop's machine does to the agent, and the agent to it."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_kit import FakeServer, sale, until
from installed import HOUSE, TILL, UNIT
from machine import Machine
from office import CODE, Office

from agent.daemon import STOP_WITHIN_S

pytestmark = [pytest.mark.service, pytest.mark.root]

OFFLINE = "http://127.0.0.1:1"
WATCHDOG_S = 2.0
Install = Callable[..., None]


def _drop(machine: Machine, *numbers: int) -> None:
    """Hand in one file as a careful till does, under its own account."""
    sales = machine.path("/var/lib/till/sales")
    temporary = sales / f"{numbers[0]}.tmp"
    temporary.write_bytes(b"".join(sale(number) + b"\n" for number in numbers))
    temporary.chmod(0o640)
    shutil.chown(temporary, TILL)
    temporary.rename(sales / f"{numbers[0]}.jsonl")


def _epochs(server: FakeServer) -> set[str]:
    return {key.rpartition("/")[2].partition("-")[0] for key in server.stored}


def test_it_is_ready_while_offline_and_is_left_alone(machine: Machine, install: Install) -> None:
    """READY doesn't wait for a network; three watchdogs later nobody has killed it, though nothing gets through."""
    install(OFFLINE, impatient=True, watchdog_s=WATCHDOG_S)
    machine.run("systemctl start scout-agent")
    _drop(machine, 1, 2)
    until(lambda: "2 sales wait" in machine.show("scout-agent", "StatusText")[0], "it says what waits")
    until(lambda: machine.events("scout-agent").count("batch_not_sent") > 3 * WATCHDOG_S, "it tries and tries")
    (ping,) = machine.show("scout-agent", "WatchdogTimestampMonotonic")

    def pinged_for_long() -> bool:
        (now,) = machine.show("scout-agent", "WatchdogTimestampMonotonic")
        return int(now) - int(ping) > 3 * WATCHDOG_S * 1_000_000

    until(pinged_for_long, "three watchdogs pass")

    assert machine.show("scout-agent", "ActiveState", "NRestarts") == ["active", "0"]


def test_the_watchdog_restarts_a_hung_agent_and_nothing_is_lost(
    machine: Machine, install: Install, server: FakeServer
) -> None:
    """One thread of it hangs, the rest works on; the stacks are in the journal before it is killed."""
    install(server.url, impatient=True, watchdog_s=WATCHDOG_S)
    machine.run("systemctl start scout-agent")
    _drop(machine, 1, 2)
    until(lambda: sorted(server.numbers()) == [1, 2], "it works")
    machine.path("/var/lib/till/sales/.hang").touch()
    until(lambda: machine.events("scout-agent").count("loop_hung") == 1, "the hang is seen")
    _drop(machine, 3, 4)
    until(lambda: int(machine.show("scout-agent", "NRestarts")[0]) >= 1, "systemd restarts it", 40)
    machine.path("/var/lib/till/sales/.hang").unlink()
    until(lambda: sorted(server.numbers()) == [1, 2, 3, 4], "everything arrives", 40)
    journal = [entry["MESSAGE"] for entry in machine.journal("scout-agent")]

    assert any("Watchdog timeout" in line for line in journal)
    assert any('hanging_agent.py", line' in line for line in journal)
    assert len(_epochs(server)) == 1


def test_a_killed_agent_comes_back_in_its_epoch(machine: Machine, install: Install, server: FakeServer) -> None:
    """SIGKILL while sales wait: systemd starts it, each sale arrives once, and the machine's boot is still the same."""
    server.answer = lambda _path, _body: (503, b"")
    install(server.url)
    machine.run("systemctl start scout-agent")
    for number in range(1, 4):
        _drop(machine, number)
        until(lambda number=number: _rows_not_sent(machine) == number, "it is in the spool")
        (before,) = machine.show("scout-agent", "MainPID")
        machine.run("systemctl kill --signal=KILL scout-agent")
        until(lambda before=before: machine.show("scout-agent", "MainPID")[0] not in {before, "0"}, "it is back")
    server.answer = lambda _path, _body: None
    until(lambda: sorted(server.numbers()) == [1, 2, 3], "everything arrives, once")

    assert machine.show("scout-agent", "NRestarts") == ["3"]
    assert len(_epochs(server)) == 1


def _rows_not_sent(machine: Machine) -> int:
    """Ask the program, under the service's own account."""
    account = "setpriv --reuid=scout-agent --regid=scout-agent --clear-groups"
    said = machine.run(f"{account} /usr/bin/scout-agent status --json", check=False)
    return int(json.loads(said.stdout)["rows_not_sent"])


def test_stop_takes_five_seconds_though_the_server_hangs(
    machine: Machine, install: Install, server: FakeServer
) -> None:
    """And costs nothing: what was being sent is sent again."""
    server.hang.set()
    install(server.url)
    machine.run("systemctl start scout-agent")
    _drop(machine, 1)
    assert server.hanging.wait(20)
    before = time.monotonic()
    machine.run("systemctl stop scout-agent")
    took_s = time.monotonic() - before
    result = machine.show("scout-agent", "ActiveState", "Result")
    server.hang.clear()
    server.stored.clear()
    machine.run("systemctl start scout-agent")
    until(lambda: server.numbers() == [1], "it arrives")

    assert result == ["inactive", "success"]
    assert took_s < STOP_WITHIN_S + 3


def test_it_is_enrolled_by_one_command_and_renews_under_its_hardening(
    machine: Machine, install: Install, server: FakeServer
) -> None:
    """What root leaves is the service's own, and the process that signs may do so where the service may do little."""
    office = Office()
    server.answer = office.answer
    install(server.url)
    machine.run(f"/usr/bin/scout-agent enrol --server {server.url} --code {CODE}")
    owners = machine.run(
        "stat --format %U:%a /var/lib/scout-agent/device-key /var/lib/scout-agent/token"
    ).stdout.split()
    office.issued.clear()  # so that what was just issued opens nothing
    office.refuse_other_tokens(server)
    machine.run("systemctl start scout-agent")
    _drop(machine, 1)
    until(lambda: server.numbers() == [1], "it arrives with another token", 60)

    assert owners == ["scout-agent:600", "scout-agent:600"]
    assert "token_renewed" in machine.events("scout-agent")


def test_reload_keeps_the_process(machine: Machine, install: Install, server: FakeServer) -> None:
    """What `systemctl reload` sends is heeded, not died of."""
    install(server.url)
    machine.run("systemctl start scout-agent")
    before = machine.show("scout-agent", "MainPID", "NRestarts")
    machine.run("systemctl reload scout-agent")
    _drop(machine, 1)
    until(lambda: server.numbers() == [1], "it works on")

    assert machine.show("scout-agent", "MainPID", "NRestarts") == before


def test_everybody_sees_how_it_is_and_nobody_sees_the_sales(
    machine: Machine, install: Install, server: FakeServer
) -> None:
    """status.json is for all though the umask is 0027; state and config belong to the service."""
    install(server.url)
    machine.run("systemctl start scout-agent")
    _drop(machine, 1)
    until(lambda: server.numbers() == [1], "it works")
    seen = machine.run("setpriv --reuid=nobody --regid=nogroup --clear-groups cat /run/scout-agent/status.json")
    hidden = machine.run("setpriv --reuid=nobody --regid=nogroup --clear-groups ls /var/lib/scout-agent", check=False)
    owner = machine.run("stat --format %U:%G:%a /var/lib/scout-agent /var/lib/scout-agent/spool.db").stdout.split()

    assert json.loads(seen.stdout)["daemon"]["pid"] > 0
    assert "Permission denied" in hidden.stderr
    assert owner == ["scout-agent:scout-agent:750", "scout-agent:scout-agent:640"]


def test_the_journal_has_priorities_and_one_object_an_entry(
    machine: Machine, install: Install, server: FakeServer
) -> None:
    """`journalctl -p warning` shows what somebody should look at, and only that."""
    install(server.url)
    machine.run("systemctl start scout-agent")
    machine.path("/var/lib/till/sales/bad.jsonl").write_bytes(b'{"broken":\n' + sale(1) + b"\n")
    until(lambda: server.numbers() == [1], "the good line arrives")
    until(lambda: "line_rejected" in machine.events("scout-agent", "-p", "warning"), "the bad one is shown")
    everything = [entry for entry in machine.journal("scout-agent") if entry.get("_TRANSPORT") == "stdout"]

    assert {"agent_started", "file_taken"} <= set(machine.events("scout-agent"))
    assert set(machine.events("scout-agent", "-p", "warning")) == {"line_rejected"}
    assert all(json.loads(entry["MESSAGE"])["event"] for entry in everything)


def test_the_hardening_forbids_what_the_agent_never_does_and_nothing_that_it_does(machine: Machine) -> None:
    """A program under the very same unit tries both."""
    machine.run("install -d -m 0777 /var/lib/till /srv")
    machine.path("/run/systemd/system/scout-probe.service").write_text(UNIT.read_text())
    drop_in = machine.path("/run/systemd/system/scout-probe.service.d/probe.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(
        "[Unit]\nConditionPathExists=\n"
        f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart={HOUSE}/probe\n"
    )
    machine.run("systemctl daemon-reload")
    machine.run("systemctl start scout-probe")
    messages = [entry["MESSAGE"] for entry in machine.journal("scout-probe")]
    (tried,) = [json.loads(message) for message in messages if message.startswith("{")]

    assert {name for name, worked in tried.items() if worked} == {
        "write its state",
        "write its runtime directory",
        "write /var/lib/till",
        "write /srv",
        "open a UNIX socket",
        "open an IPv4 socket",
        "open an IPv6 socket",
        "read the boot's id",
        "ask whether the clock is synchronised",
    }
    assert len(tried) == 20


def test_systemd_has_nothing_to_say_about_the_unit(machine: Machine) -> None:
    """Installed where it belongs, with the program where it says."""
    said = machine.run("systemd-analyze verify /usr/lib/systemd/system/scout-agent.service")

    assert (said.stdout, said.stderr) == ("", "")


def test_the_account_is_made_without_a_login(machine: Machine) -> None:
    """By the sysusers file that comes with the unit."""
    (line,) = machine.run("getent passwd scout-agent").stdout.splitlines()

    assert line.endswith(":/var/lib/scout-agent:/usr/sbin/nologin")
    assert Path("/etc/passwd").read_text().count("scout-agent") == 0
