"""The packages under test, built from this checkout, and others made of them."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

CHECKOUT = Path(__file__).resolve().parents[1]
BUILDER = CHECKOUT / "deploy/packages/build.py"


@cache
def a_package(program: str, version: str, architecture: str = "amd64") -> Path:
    """Build a package of this checkout under a version, unless it was built of the very same files."""
    folder = CHECKOUT / "build/packages/tests" / _ingredients()
    package = folder / f"{program}_{version}_{architecture}.deb"
    if package.exists():
        return package
    command = [sys.executable, BUILDER, "--program", program, "--architecture", architecture, "--version", version]
    done = subprocess.run([*command, "--output", folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == package
    return package


def another_version(package: Path, folder: Path, version: str, files: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Make of a package one of another version, perhaps with some files more: sooner than to build it."""
    tree = folder / f"tree-{version}"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    for place, text in files.items():
        (tree / place).write_text(text)
    (metadata,) = tree.glob("usr/lib/*/lib/scout_edge-*.dist-info/METADATA")
    for file in (tree / "DEBIAN/control", metadata):
        file.write_text(file.read_text().replace(f"Version: {_version(package)}\n", f"Version: {version}\n"))
    made = folder / package.name.replace(_version(package), version)
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def _ingredients() -> str:
    listed = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        check=True,
        capture_output=True,
    ).stdout.decode()
    files = [CHECKOUT / name for name in listed.split("\0") if name and not name.startswith("tests/")]
    content = b"".join(bytes(file) + file.read_bytes() for file in files if file.is_file())
    return hashlib.sha256(content).hexdigest()[:12]


def _version(package: Path) -> str:
    return package.name.split("_")[1]
