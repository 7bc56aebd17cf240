"""`status` as a technician meets it: real processes, a real terminal, a real daemon that publishes."""

import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from agent_kit import FakeServer, a_folder_for_all, a_token, as_account, environment, sale, until, write_config
from typer.testing import CliRunner

from agent.cli import app, main

NOBODY = 65534
COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]
QUICK = {"batch": {"age_max_s": 0.05}, "heartbeat": {"interval_s": 0.2}, "upload": {"retry_wait_max_s": 0.2}}


def agent(config: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [*COMMAND, *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment() | variables)


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Return a config for a quick agent."""
    (tmp_path / "sales").mkdir()
    (tmp_path / "run").mkdir()
    server.is_on_time = True
    return write_config(tmp_path, server.url, **QUICK)


@contextmanager
def a_daemon(config: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon as systemd would; end it."""
    with (config.parent / "daemon.log").open("ab") as log:
        command = [*COMMAND, "run", "--config", str(config)]
        process = subprocess.Popen(command, stderr=log, env=environment() | variables, umask=0o077)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


class Terminal:
    """A pseudo terminal with a command on it."""

    def __init__(self, config: Path, *arguments: str, columns: int = 80, rows: int = 24, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments, "--config", str(config)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment() | {"TERM": "xterm"} | variables,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (so that Ctrl-C arrives)
        )
        os.close(theirs)
        self.text = ""

    def read(self) -> bool:
        """Take what was written; False once it ended."""
        try:
            part = os.read(self._ours, 65536)
        except OSError:
            return False
        self.text += part.decode()
        return bool(part)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def end(self) -> int:
        """Read to the end; return the exit status."""
        while self.read():
            pass
        os.close(self._ours)
        return self.process.wait(30)


def test_the_daemon_publishes_what_status_prints(config: Path, server: FakeServer) -> None:
    """In systemd's runtime directory, for everybody, and nothing of it on the card; `status` finds it there."""
    run = {"RUNTIME_DIRECTORY": str(config.parent / "run")}
    file = config.parent / "run" / "status.json"
    (config.parent / "sales" / "one.jsonl").write_bytes(sale(1))
    with a_daemon(config, **run) as daemon:
        until(lambda: file.exists() and json.loads(file.read_bytes())["rows_settled"] == 1, "it is published")
        published = json.loads(file.read_bytes())
        printed = json.loads(agent(config, "status", "--json", **run).stdout)
        pid = daemon.pid

    assert printed["daemon"] == published["daemon"]
    assert (published["daemon"]["pid"], published["exit_status"], printed["exit_status"]) == (pid, 0, 0)
    assert printed.keys() == published.keys() | {"published"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not (config.parent / "spool" / "status.json").exists()
    assert sorted(server.numbers()) == [1]


def test_what_is_published_follows_a_reload(config: Path, server: FakeServer) -> None:
    """Where the token lies now is looked at, not where it lay at the start: or nobody hears that it is gone."""
    run = {"RUNTIME_DIRECTORY": str(config.parent / "run")}
    file, home = config.parent / "run" / "status.json", config.parent
    with a_daemon(config, **run):
        until(lambda: file.exists() and json.loads(file.read_bytes())["exit_status"] == 0, "all is well")
        write_config(home, server.url, **QUICK, server={"token_file": str(home / "other-token")})
        until(lambda: json.loads(file.read_bytes())["token_problem"], "the new place is looked at")
        problem = json.loads(file.read_bytes())["token_problem"]["message"]

    assert str(home / "other-token") in problem


def test_a_pause_a_refused_config_and_no_token_never_hide_the_counts(config: Path) -> None:
    """With the daemon dead and the config broken, the exit status is 2 and the sales are still counted."""
    command = [*COMMAND, "add", "-", "--config", str(config)]
    subprocess.run(command, input=sale(1), env=environment(), check=True, capture_output=True)
    config.write_text(config.read_text().replace("age_max_s = 0.05", "age_max_s = -1"))
    (config.parent / "token").unlink()
    done = agent(config, "status")

    assert done.returncode == 2
    assert "batch.age_max_s" in done.stdout
    assert "not sent      1 sale, the oldest taken" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert done.stderr == ""


def test_colours_are_for_terminals_only(config: Path) -> None:
    """And NO_COLOR is honoured; a narrow phone gets narrow lines."""
    terminal, plain, narrow = (
        Terminal(config, "status", **options)
        for options in ({}, {"NO_COLOR": "1"}, {"columns": 44})  # type: ignore[arg-type]
    )
    assert [each.end() for each in (terminal, plain, narrow)] == [2, 2, 2]
    piped = agent(config, "status", "--json")

    assert "\x1b[1;31mNOT RUNNING" in terminal.text
    assert "\x1b" not in plain.text + piped.stdout
    assert "NOT RUNNING" in plain.text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", narrow.text).splitlines()
    assert 20 < max(len(line) for line in lines) <= 44


def test_watch_redraws_in_place_until_ctrl_c(config: Path) -> None:
    """No flicker: the screen is cleared once, then overwritten; the exit status is that of the last look."""
    terminal = Terminal(config, "status", "--watch", columns=80, rows=12)
    while terminal.text.count("BROKEN") < 2:
        assert terminal.read()
    terminal.type(b"\x03")

    assert terminal.end() == 2
    assert terminal.text.count("\x1b[2J") == 1
    first, second = terminal.text.split("\x1b[H")[1:3]
    assert first.count("\n") == second.count("\n") == 11  # the verdict stays in sight on a low screen
    assert "Traceback" not in terminal.text


def test_watch_without_a_terminal_is_refused_plainly(config: Path) -> None:
    """Not an endless stream into somebody's pipe."""
    piped = agent(config, "status", "--watch")
    dumb = Terminal(config, "status", "--watch", TERM="dumb")

    assert (piped.returncode, piped.stdout) == (64, "")
    assert piped.stderr.startswith("scout-agent: --watch redraws a terminal")
    assert dumb.end() == 64


def test_status_holds_no_secret(config: Path) -> None:
    """Neither on the screen nor in its JSON."""
    token = a_token(marker="Maria Clara")
    (config.parent / "token").write_text(token)
    config.write_text(config.read_text().replace("[folder]", 'api_key = "anon-key-4711"\n[folder]'))
    shown = agent(config, "status").stdout + agent(config, "status", "--json").stdout

    assert "days left" in shown
    assert [part for part in [*token.split("."), "anon-key-4711"] if part in shown] == []


@pytest.mark.root
def test_a_technicians_own_account_sees_a_running_agent(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config and spool are closed to it; the daemon ran with a umask of 0077. The doctor says how to see more."""
    with a_folder_for_all() as home:
        for name in ("sales", "run"):
            (home / name).mkdir()
        server.is_on_time = True
        config = write_config(home, server.url, **QUICK)
        config.chmod(0o600)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(home / "run"))
        (home / "sales" / "one.jsonl").write_bytes(sale(1))
        # What such an account can't load must be loaded before.
        CliRunner().invoke(app, ["doctor", "--config", str(config)])
        nothing = as_account(NOBODY, partial(_main, "status", config))
        with a_daemon(config, RUNTIME_DIRECTORY=str(home / "run")):
            file = home / "run" / "status.json"
            until(lambda: file.exists() and json.loads(file.read_bytes())["rows_settled"] == 1, "it is published")
            printed = as_account(NOBODY, partial(_main, "status", config))
        ended = as_account(NOBODY, partial(_main, "status", config))
        doctor = as_account(NOBODY, partial(_main, "doctor", config))

    assert "no running agent has published its status. Run: sudo scout-agent status" in nothing
    assert nothing.endswith("exit 2\n")
    assert "1 sale in the last hour" in printed
    assert re.search(r"ALL IS WELL.*\nThe agent itself saw this \d+ seconds ago.*\nexit 0\n", printed)
    assert "sudo scout-agent status" in printed
    assert "NOT RUNNING" in ended
    assert ended.endswith("exit 2\n")
    assert "DO: look with more rights: sudo scout-agent doctor" in doctor
    assert "Traceback" not in nothing + printed + ended + doctor


def _main(command: str, config: Path) -> None:
    sys.argv = ["scout-agent", command, "--config", str(config)]
    main()
