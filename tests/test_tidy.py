"""The project keeps its own agreements: what can be checked by a machine is."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer

from agent.cli import app as agent_app
from server.cli import app as server_app

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("wire", "agent", "server")
MODULES = sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))
PAGES = {"scout-agent": "agent", "scout-server": "server"}
REFERENCES = {program: (CHECKOUT / "docs" / f"{page}.md").read_text() for program, page in PAGES.items()}
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def _imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def _commands(app: typer.Typer, program: str) -> set[str]:
    own = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {f"{group.name} {name}" for group in app.registered_groups for name in _names(group.typer_instance)}
    return {f"{program} {name}" for name in own | groups}


def _names(app: typer.Typer | None) -> set[str]:
    assert app is not None
    return {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}


def test_every_module_opens_with_its_promise() -> None:
    """A module without a docstring is a room without a sign."""
    without = [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]

    assert len(MODULES) > 20
    assert without == []


def test_wire_holds_only_what_both_sides_import() -> None:
    """What one side alone needs belongs to that side. Where a side answers with SQL, its tests import the shape."""
    used = {
        side: set().union(*(_imports(p) for base in (side, f"tests/{side}") for p in (CHECKOUT / base).rglob("*.py")))
        for side in ("agent", "server")
    }
    inner = set().union(*(_imports(path) for path in (CHECKOUT / "wire").rglob("*.py")))
    wire = {f"wire.{path.stem}" for path in (CHECKOUT / "wire").glob("*.py") if path.stem != "__init__"}

    one_sided = {name for name in wire if name not in used["agent"] & used["server"] and name not in inner}

    assert wire
    assert one_sided == set()


def test_no_sql_stands_in_python() -> None:
    """SQL is read, reviewed and run as SQL; only settings of a connection are words in Python."""
    statement = re.compile(
        r"\s*(select\s|insert\s+into|update\s+\S+\s+set|delete\s+from|(create|alter|drop)\s+(table|index|schema))",
        re.IGNORECASE,
    )
    texts = [
        (path, node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]

    assert texts
    assert [f"{path}:{node.lineno}" for path, node in texts if statement.match(str(node.value))] == []


@pytest.mark.parametrize(("app", "program"), [(agent_app, "scout-agent"), (server_app, "scout-server")])
def test_every_command_is_on_the_page_of_its_program(app: typer.Typer, program: str) -> None:
    """A command that docs/agent.md or docs/server.md doesn't show is a command that nobody finds."""
    commands = _commands(app, program)

    assert len(commands) >= 10
    assert {command for command in commands if not re.search(f"`(sudo )?{command}\\b", REFERENCES[program])} == set()


@pytest.mark.parametrize("lock", ["agent", "server", "dev"])
def test_every_dependency_is_locked_with_hashes_and_without_addresses(lock: str) -> None:
    """What is installed is what was tested, from wherever it comes."""
    text = (CHECKOUT / "requirements" / f"{lock}.txt").read_text()
    pins = re.findall(r"^([a-z0-9.\-]+)==.*?\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.MULTILINE)

    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 20
    assert "://" not in text


def test_every_dependency_is_named_with_its_reason() -> None:
    """A dependency without a reason is one too many."""
    lines = (CHECKOUT / "pyproject.toml").read_text().splitlines()
    requirements = [line for line in lines if re.match(r'    "[a-z][a-z0-9\-\[\]]+>=', line)]

    assert len(requirements) > 15
    assert [line for line in requirements if not re.search(r",\s+# \S", line)] == []


def test_the_agent_needs_nothing_of_the_servers() -> None:
    """A Pi installs no database driver and no web server."""
    agent = (CHECKOUT / "requirements" / "agent.txt").read_text()
    server_only = [re.split(r"[>\[]", name)[0] for name in PROJECT["project"]["optional-dependencies"]["server"]]

    assert server_only
    assert [name for name in server_only if f"\n{name}==" in agent] == []
