"""Fixtures of the tests of deploy/ansible: packages, four shops' machines, a back office, and an operator."""

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
    "0.3.0": ("config.py", "def heartbeat_url(self) -> str:\n", '        return f"{self._base}/none"\n'),
    # Ends as soon as it is started.
    "0.4.0": ("daemon.py", "config = configuration.load(config_file)\n", "    raise SystemExit(7)\n"),
}
"""Of each broken version: the file, a line in it, and what is put below that."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of packages: this checkout's, the same as a newer version, and two that are broken."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, CHECKOUT / "deploy/packages/build.py", "--program", "scout-agent"]
    subprocess.run([*command, "--architecture", "amd64", "--version", "0.1.0", "--output", folder], check=True)
    (package,) = folder.glob("*.deb")
    _another(package, "0.2.0")
    for version, fault in FAULTS.items():
        _another(package, version, fault)
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


def _another(package: Path, version: str, fault: tuple[str, str, str] | None = None) -> None:
    """Make of a package one of another version, perhaps with a fault: sooner than to build it."""
    tree = package.parent / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    library = tree / "usr/lib/scout-agent/lib"
    (metadata,) = library.glob("scout_edge-*.dist-info/METADATA")
    changes = [(place, "Version: 0.1.0\n", f"Version: {version}\n") for place in (tree / "DEBIAN/control", metadata)]
    if fault:
        file, line, below = fault
        changes.append((library / "agent" / file, line, line + below))
    for place, old, new in changes:
        text = place.read_text()
        assert text.count(old) == 1
        place.write_text(text.replace(old, new))
    made = package.with_name(package.name.replace("0.1.0", version))
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
