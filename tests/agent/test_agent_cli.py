"""The command line as a whole: help that suffices, completion that works, and nothing loaded in vain."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from agent_kit import environment, write_config
from typer.testing import CliRunner

from agent import VERSION
from agent.cli import app

PROGRAM = Path(sys.executable).parent / "scout-agent"


def commands(group: typer.Typer, *words: str) -> list[tuple[str, ...]]:
    """Every command as it is typed, the groups themselves included."""
    found = [words]
    for command in group.registered_commands:
        assert command.callback
        found.append((*words, command.name or command.callback.__name__))
    for inner in group.registered_groups:
        assert inner.typer_instance
        assert inner.name
        found += commands(inner.typer_instance, *words, inner.name)
    return found


def scout_agent(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | variables,
    )


@pytest.mark.parametrize("words", [words for words in commands(app) if words != ("config",)], ids=" ".join)
def test_help_alone_suffices(words: tuple[str, ...]) -> None:
    """With examples, on 80 columns, and no summary cut off."""
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="scout-agent", terminal_width=80)

    assert done.exit_code == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "Examples:" in done.stdout or "Begin with:" in done.stdout
    assert not re.search(r"\w\.\.\.(?! <|\])", done.stdout)  # `keys... <list>` is no summary cut off
    assert done.stderr == ""


def test_there_are_commands_to_help_with() -> None:
    """So that the test above is about something."""
    assert {("run",), ("status",), ("doctor",), ("add",), ("config", "check")} <= set(commands(app))


@pytest.mark.parametrize("words", [(), ("config",)])
def test_without_a_command_the_help_is_printed(words: tuple[str, ...]) -> None:
    """As wrong usage, for a script that forgot it."""
    done = scout_agent(*words)

    assert done.returncode == 64
    assert done.stderr.startswith("Usage: ")
    assert done.stderr.rstrip().splitlines()[-1].startswith("  ")


def test_the_version() -> None:
    """Of the program that would run."""
    assert scout_agent("--version").stdout == f"scout-agent {VERSION}\n"


def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    """In bash, as the README says: commands, options, groups."""
    home = {"HOME": str(tmp_path), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    installing = subprocess.run(
        ["bash", "-c", "scout-agent --install-completion; exit $?"],
        env=environment() | home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installing.returncode == 0, installing.stderr
    asking = """
        source ~/.bashrc
        for line in 'scout-agent st' 'scout-agent status --w' 'scout-agent config '; do
            COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$line
            [ "${line% }" = "$line" ] || { COMP_WORDS+=(''); COMP_CWORD=$((COMP_CWORD + 1)); }
            _scout_agent_completion scout-agent
            echo "${COMPREPLY[*]}"
        done
    """
    asked = subprocess.run(
        ["bash", "-c", asking], env=environment() | home, capture_output=True, text=True, check=False
    )

    assert asked.stdout.splitlines() == ["status", "--watch", "check"], asked.stderr


def test_config_check_shows_every_key_and_no_secret(tmp_path: Path) -> None:
    """All limits in force, defaults told apart."""
    config = str(write_config(tmp_path, "http://127.0.0.1:9", server={"api_key": "anon-4711"}, batch={"rows_max": 7}))
    text = scout_agent("config", "check", "--config", config).stdout
    fields = scout_agent("config", "check", "--json", "--config", config).stdout

    assert "batch.rows_max                  7\n" in text
    assert "batch.bytes_max                 1048576  (default)\n" in text
    assert '"upload.mode":"auto"' in fields
    assert "anon-4711" not in text + fields


@pytest.mark.parametrize(
    ("command", "never"),
    [
        ("status", ("httpx", "agent.doctor", "watchdog")),
        ("doctor", ("watchdog", "agent.daemon")),
        ("run", ("agent.doctor", "agent.bundle")),
    ],
)
def test_a_command_loads_only_what_it_needs(command: str, never: tuple[str, ...], tmp_path: Path) -> None:
    """A Pi has little memory, and a technician little patience."""
    config = tmp_path / "config.toml"
    config.write_text("[device")
    code = f"""
import sys
sys.argv = ["scout-agent", {command!r}, "--config", {str(config)!r}]
from agent.cli import main
try:
    main()
except SystemExit:
    print("loaded", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    loaded = done.stdout.partition("loaded ")[2].split()

    assert "agent.cli" in loaded
    assert [name for name in never if name in loaded] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "--foo"), "scout-agent status --help"),
        (("spool", "foo"), "scout-agent spool --help"),
        (("pause", "--for", "x"), "--for x: it must be such as 90s, 30m or 2h, and at most 24h"),
    ],
)
def test_wrong_usage_says_what_would_be_right(words: tuple[str, ...], told: str) -> None:
    """In one line, with the command whose help has examples."""
    done = scout_agent(*words)

    assert done.returncode == 64
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
