"""Fixtures of the tests of deploy/ansible: packages, four shops' machines, a back office, and an operator."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from house import Server, new_folder, stop
from playbooks import CHECKOUT, Operator
from shops import a_shop

SHOPS = {"pi-01": "bookworm", "pi-02": "trixie", "pi-03": "bookworm", "pi-04": "trixie"}
FAULTS = {
    # Runs and takes sales, and calls at the wrong door.
    "0.3.0": ("agent/config.py", "    def heartbeat_url(self) -> str:\n", '        return f"{self._base}/none"\n'),
        "agent/config.py",
        "    def heartbeat_url(self) -> str:\n",
        '        return f"{self._base}/rest/v1/rpc/none"\n',
    ),
    # Ends as soon as it is started.
    "0.4.0": ("agent/daemon.py", "    config = configuration.load(config_file)\n", "    raise SystemExit(7)\n"),
}
"""Of each broken version: the file, a line in it, and what is put below that."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of packages of this checkout in two versions, and of two that are broken."""
    folder = tmp_path_factory.mktemp("packages")
    for version in ("0.1.0", "0.2.0"):
        _build(CHECKOUT, version, folder)
    for version, (file, line, fault) in FAULTS.items():
        tree = _copy(tmp_path_factory.mktemp("broken"))
        text = (tree / file).read_text()
        assert text.count(line) == 1
        (tree / file).write_text(text.replace(line, line + fault))
        _build(tree, version, folder)
    return folder


@pytest.fixture(scope="session")
def operator(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Give an operator of four blank machines."""
    folder, home = new_folder(), Path(tempfile.mkdtemp(prefix="fleet-"))
    machines = tmp_path_factory.mktemp("machines")
    key = home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public_key = key.with_suffix(".pub").read_text()
    server = Server(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(lambda: stop([server.process]))
        server.start()
        shops = []
        for name, suite in SHOPS.items():
            place = machines / name
            place.mkdir()
            shops.append(stack.enter_context(a_shop(name, suite, place, public_key)))
        yield Operator(home, server, packages, shops, key)


def _copy(folder: Path) -> Path:
    """The checkout's sources, to be broken; downloads are shared."""
    kept = ("agent", "wire", "deploy", "systemd", "requirements", "docs", "completion")
    for source in CHECKOUT.iterdir():
        if source.is_file():
            shutil.copy(source, folder)
        elif source.name in kept:
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "build").mkdir()
    (CHECKOUT / "build" / "wheels").mkdir(parents=True, exist_ok=True)
    (folder / "build" / "wheels").symlink_to(CHECKOUT / "build" / "wheels")
    return folder


def _build(tree: Path, version: str, output: Path) -> None:
    command = [sys.executable, tree / "deploy/packages/build.py", "--program", "scout-agent", "--architecture", "amd64"]
    subprocess.run(
        [*command, "--version", version, "--output", output],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1764000000"},
        check=True,
    )
