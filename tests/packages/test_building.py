"""The packages as the builder makes them, looked at without installing them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from debs import BUILDER, CHECKOUT, a_package

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]

VERSION = "0.0.2"
MACHINES = {"amd64": 62, "arm64": 183}
"""ELF's numbers of the processors."""


@pytest.fixture(scope="module", params=MACHINES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Name one of the architectures."""
    return str(request.param)


@pytest.fixture(scope="module")
def tree(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the agent's package."""
    folder = tmp_path_factory.mktemp("tree") / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", a_package("scout-agent", VERSION, architecture), folder], check=True)
    return folder


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Whoever builds it, wherever and whenever: a package can be checked by building it again."""
    built = a_package("scout-agent", VERSION)
    command = [sys.executable, BUILDER, "--program", "scout-agent", "--architecture", "amd64", "--version", VERSION]
    os.utime(CHECKOUT / "agent/cli.py")
    subprocess.run(
        [*command, "--output", tmp_path / "elsewhere"],
        check=True,
        env=os.environ | {"TZ": "Asia/Manila", "LC_ALL": "C"},
        umask=0o077,
        stdout=subprocess.DEVNULL,
    )

    assert (tmp_path / "elsewhere" / built.name).read_bytes() == built.read_bytes()


def test_its_native_parts_are_for_its_processor(tree: Path, architecture: str) -> None:
    """Built on another one; for each of its Pythons the same parts, and none in the folder that all share."""
    parts = list(tree.rglob("*.so"))
    machines = {int.from_bytes(part.read_bytes()[18:20], "little") for part in parts}
    home = tree / "usr/lib/scout-agent"
    of_each = [{part.name.partition(".")[0] for part in (home / f"python{v}").rglob("*.so")} for v in ("3.11", "3.13")]

    assert machines == {MACHINES[architecture]}
    assert of_each[0] == of_each[1] != set()
    assert [part for part in (home / "lib").rglob("*.so") if "cpython" in part.name] == []


def test_it_holds_what_is_locked_and_says_what_is_left_out(tree: Path) -> None:
    """Every library by its locked version, in the shared folder or in that of each Python."""
    lock = (CHECKOUT / "requirements/agent.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9.\-]+)==([^ ]+)", lock, re.MULTILINE))
    left_out = tomllib.loads((CHECKOUT / "deploy/pi/package.toml").read_text())["left_out"]
    not_for_linux = {"colorama"}
    expected = {(name, version) for name, version in locked.items() if name not in left_out.keys() | not_for_linux}

    for python in ("3.11", "3.13"):
        folders = [tree / "usr/lib/scout-agent" / name for name in ("lib", f"python{python}")]
        found = [path.name.removesuffix(".dist-info") for folder in folders for path in folder.glob("*.dist-info")]
        held = {
            (name.replace("_", "-").lower(), version) for name, _, version in (text.partition("-") for text in found)
        }
        assert held - {("scout-edge", VERSION)} == expected
        assert ("scout-edge", VERSION) in held
    assert len(expected) > 25
