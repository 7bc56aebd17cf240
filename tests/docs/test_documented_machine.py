"""What the docs tell to type on a machine, with apt and systemd, is typed on one: a blank Debian, booted.

It has no network but its own loopback, so that nothing is installed but our packages, and both programs meet.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_kit import sale, until
from likeness import unlike
from machine import VARIABLES, Machine, a_machine
from pages import CHECKOUT, Block, Page, pages
from roots import PACKAGES, root_tar, unpacked

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(900)]

PAGES = [page for page in pages() if any(block.place == "machine" and not block.by for block in page.blocks)]
PROGRAMS = ("scout-agent", "scout-server")
SERVER = "http://127.0.0.1:8700"
MORE = ("passwd", "sudo", "systemd-timesyncd")
STARTS = re.compile(r"apt install \./scout-server|systemctl (re)?start scout-server$")
WITHIN_S = 90.0


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages, as `make packages` makes them."""
    folder = tmp_path_factory.mktemp("debs")
    for program in PROGRAMS:
        command = [CHECKOUT / ".venv/bin/python", CHECKOUT / "deploy/packages/build.py", "--program", program]
        subprocess.run([*command, "--architecture", "amd64", "--output", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian as it comes, with a till's account."""
    tree = unpacked(root_tar("trixie", packages=[*PACKAGES, *MORE]), tmp_path_factory.mktemp("trixie") / "root")
    _in_tree(tree, "useradd", "--create-home", "till")
    return tree


@pytest.fixture(scope="session")
def installed(blank: Path, debs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with both packages."""
    tree = tmp_path_factory.mktemp("installed") / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", blank, tree], check=True)
    for deb in debs.glob("*.deb"):
        shutil.copy(deb, tree / "root")
        _in_tree(tree, "dpkg", "--install", f"/root/{deb.name}")
    return tree


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_a_page_tells_to_type_on_a_machine_works_there(page: Page, request: pytest.FixtureRequest) -> None:
    """Both packages are installed already, as this version."""
    with _a_machine(request.getfixturevalue("installed"), request) as machine:
        for block in page.blocks:
            if block.place == "machine" and not block.by:
                _type(machine, block)


def test_from_two_blank_machines_to_a_sale_in_the_warehouse_by_the_readmes_commands(
    request: pytest.FixtureRequest,
) -> None:
    """Two commands on the server, two on the device, and what a till drops is in silver."""
    (readme,) = (page for page in PAGES if page.name == "README.md")
    commands = [block for block in readme.blocks if block.place == "machine"]
    assert sum(len(block.text.splitlines()) for block in commands) == 4
    with _a_machine(request.getfixturevalue("blank"), request) as machine:
        for block in commands:
            _type(machine, block)
        file = machine.path("/var/lib/till/sales/1.part")
        file.write_bytes(sale(1))
        file.rename(file.with_name("1.json"))
        until(lambda: _rows(machine) == 1, "the sale is in bronze", WITHIN_S)


@contextmanager
def _a_machine(tree: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with both packages in root's home, not necessarily installed."""
    home = request.getfixturevalue("tmp_path") / "machine"
    home.mkdir()
    with a_machine(home, tree, is_alone=True) as machine:
        for deb in request.getfixturevalue("debs").glob("*.deb"):
            shutil.copy(deb, machine.path("/root") / deb.name)
        if machine.run("systemctl is-enabled scout-server", check=False).returncode == 0:
            _wait_for_server(machine)
        yield machine


def _type(machine: Machine, block: Block) -> None:
    """Type a block's lines as root, in its home; see that it ends and prints as the page says."""
    script = re.sub(r"_[0-9.]+_arm64\.deb", "_*.deb", block.text.replace("https://sales.example.com", SERVER))
    if re.search(r"\bCODE\b", script):
        script = re.sub(r"\bCODE\b", _code(machine), script)
    # As somebody does who reads what is printed before he types on: a first start takes a few seconds.
    for line in script.replace("\\\n", " ").splitlines():
        done = _run(machine, line)
        assert done.returncode == block.exit_status, f"{block}: {line}\n{done.stdout}"
        if STARTS.search(line):
            _wait_for_server(machine)
    assert not block.shown or not (said := unlike(block.shown, done.stdout)), f"{block}: {said}"


def _run(machine: Machine, line: str) -> subprocess.CompletedProcess[str]:
    enter = ["nsenter", "--target", str(machine.leader), "--all", "--wd", "--"]
    return subprocess.run(
        [*enter, "sh", "-euc", f"exec 2>&1; cd /root; {line}"],
        env=VARIABLES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )


def _wait_for_server(machine: Machine) -> None:
    answers = "scout-server status"
    until(lambda: _run(machine, answers).returncode == 0, "the server answers", WITHIN_S)


def _code(machine: Machine) -> str:
    done = _run(machine, "scout-server devices code pi-05 --json 2>/dev/null")
    return str(json.loads(done.stdout)["code"])


def _rows(machine: Machine) -> int:
    status = json.loads(_run(machine, "scout-server status --json 2>/dev/null").stdout)
    return int(sum(device["rows_loaded"] for device in status))


def _in_tree(tree: Path, *command: str) -> None:
    in_tree = ["systemd-nspawn", "--quiet", f"--directory={tree}", "--register=no", "--keep-unit"]
    subprocess.run([*in_tree, *command], check=True, env=VARIABLES, stdin=subprocess.DEVNULL, capture_output=True)
