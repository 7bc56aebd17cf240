"""Builds the Debian package of one program for one architecture. deploy/packages/README.md says what lies where.

May be relied on
- It needs Python, pip and dpkg-deb: no compiler, no emulation, no root. Wheels are the locked ones, by their hashes.
- One package serves every Python of PYTHONS; what is the same for all of them is in it once.
- The same commit, version and architecture give the same bytes.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from wheels import ARCHITECTURES, PYTHONS, locked_wheels, unpack

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = CHECKOUT / "deploy/packages"
PLACES = {"scout-agent": CHECKOUT / "deploy/pi", "scout-server": CHECKOUT / "deploy/server"}
"""Where each program's package.toml and maintainer scripts are."""

SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{program}",
    "zsh": "usr/share/zsh/vendor-completions/_{program}",
    "fish": "usr/share/fish/vendor_completions.d/{program}.fish",
}
# A program without commands, asked as any shell asks: typer's answer depends on nothing but the name.
_ASK_COMPLETION = "import sys, typer; app = typer.Typer(); app.command()(lambda: None); app(prog_name=sys.argv[1])"
_COPYRIGHT = """{program} is part of scout-edge.

{license}
The packages of others in /usr/lib/{program} have their licences beside them, in *.dist-info.
"""


class Unbuildable(Exception):
    """The package can't be built; the sentence says what to change."""


@dataclass(frozen=True)
class Recipe:
    """One program's package.toml; the file in deploy/pi has a comment for each key."""

    program: str
    module: str
    environment_file: str
    requirements: str
    packages: list[str]
    left_out: dict[str, str]
    section: str
    depends: list[str]
    recommends: list[str]
    summary: str
    description: str
    conffiles: list[str]
    compression_level: int
    files: dict[str, str]


def main() -> None:
    """Build what the command line asks for and print where it lies."""
    parser = argparse.ArgumentParser(description="Build the Debian package of a program.")
    parser.add_argument("--program", choices=PLACES, required=True)
    parser.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    parser.add_argument("--version", help="without it, as pyproject.toml says")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "build/packages", metavar="DIR")
    asked = parser.parse_args()
    try:
        print(build(asked.program, asked.architecture, asked.version or version_of_checkout(), asked.output))
    except Unbuildable as problem:
        sys.exit(f"{parser.prog}: {problem}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{parser.prog}: {error.cmd[0]} failed; what it says is above.")


def build(program: str, architecture: str, version: str, output: Path) -> Path:
    """Build a package into a folder. Raises Unbuildable, or CalledProcessError of pip's or dpkg-deb's."""
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise Unbuildable(f"version {version}: must be numbers and dots, which Python and Debian order alike")
    recipe = Recipe(**tomllib.loads((PLACES[program] / "package.toml").read_text()))
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"{program}_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix=f"{program}-", dir=output) as folder:
        root = Path(folder) / "root"
        _install_libraries(root, recipe, architecture)
        _install_program(root, recipe, version)
        _install_files(root, recipe)
        _write_control(root, recipe, architecture, version)
        built = Path(folder) / package.name
        _pack(root, built, recipe.compression_level)
        built.replace(package)
    return package


def version_of_checkout() -> str:
    """What pyproject.toml says."""
    version: str = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    return version


def _install_libraries(root: Path, recipe: Recipe, architecture: str) -> None:
    """A wheel that every Python takes into lib, the others each into its Python's own folder."""
    lock = CHECKOUT / recipe.requirements
    wheels = {python: locked_wheels(lock, architecture, python, CHECKOUT / "build/wheels") for python in PYTHONS}
    serve_all = set.intersection(*({wheel.name for wheel in found} for found in wheels.values()))
    home = root / "usr/lib" / recipe.program
    for python, found in wheels.items():
        for wheel in found:
            folder = home / ("lib" if wheel.name in serve_all else f"python{python}")
            is_done = wheel.name in serve_all and python != PYTHONS[0]
            if not is_done and wheel.name.partition("-")[0] not in recipe.left_out:
                unpack(wheel, folder)


def _install_program(root: Path, recipe: Recipe, version: str) -> None:
    """Our own packages, what `importlib.metadata` is asked for, the launcher, and the shells' completion."""
    lib = root / "usr/lib" / recipe.program / "lib"
    for package in recipe.packages:
        shutil.copytree(CHECKOUT / package, lib / package, ignore=shutil.ignore_patterns("__pycache__"))
    metadata = f"Metadata-Version: 2.1\nName: scout-edge\nVersion: {version}\n"
    _write(lib / f"scout_edge-{version}.dist-info/METADATA", metadata)
    _write(root / "usr/bin" / recipe.program, _filled(HERE / "launcher.py", recipe), 0o755)
    runtime = root / f"usr/share/python3/runtime.d/{recipe.program}.rtupdate"
    _write(runtime, _filled(HERE / "rtupdate", recipe), 0o755)
    for shell, place in COMPLETIONS.items():
        _write(root / place.format(program=recipe.program), _completion(lib, recipe.program, shell))


def _filled(template: Path, recipe: Recipe) -> str:
    text = template.read_text()
    for name in ("program", "module", "environment_file"):
        text = text.replace(f"@{name.upper()}@", getattr(recipe, name))
    return text


def _completion(lib: Path, program: str, shell: str) -> str:
    asked = {f"_{program}_COMPLETE".upper().replace("-", "_"): f"source_{shell}"}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", _ASK_COMPLETION, program]
    return subprocess.run(command, env=environment | asked, check=True, capture_output=True, text=True).stdout


def _install_files(root: Path, recipe: Recipe) -> None:
    """What package.toml lists; compressed where the place's name ends in .gz."""
    for place, source in recipe.files.items():
        content = (CHECKOUT / source).read_bytes()
        if place.endswith(".gz"):
            content = gzip.compress(content, mtime=0)
        _write(root / place, content)
    license_text = (CHECKOUT / "LICENSE").read_text()
    text = _COPYRIGHT.format(program=recipe.program, license=license_text)
    _write(root / f"usr/share/doc/{recipe.program}/copyright", text)


def _write_control(root: Path, recipe: Recipe, architecture: str, version: str) -> None:
    control = root / "DEBIAN"
    kilobytes = sum(-(-path.stat().st_size // 1024) for path in root.rglob("*") if path.is_file())
    fields = {
        "Package": recipe.program,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "The scout-edge developers <scout-edge@localhost>",
        "Installed-Size": str(kilobytes),
        "Section": recipe.section,
        "Priority": "optional",
        "Depends": ", ".join(recipe.depends),
        "Recommends": ", ".join(recipe.recommends),
        "Description": "\n ".join([recipe.summary, *recipe.description.strip().splitlines()]),
    }
    _write(control / "control", "".join(f"{name}: {text}\n" for name, text in fields.items() if text))
    if recipe.conffiles:
        _write(control / "conffiles", "".join(f"{file}\n" for file in recipe.conffiles))
    for script in SCRIPTS:
        source = PLACES[recipe.program] / script
        if source.exists():
            _write(control / script, source.read_text(), 0o755)


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def _pack(root: Path, package: Path, level: int) -> None:
    """Pack a tree, with nothing of this machine in it: no owner, umask, date, or number of its processors.

    By zstd: it unpacks ten times as fast as xz, which a Pi notices, and bookworm's dpkg is the first that reads it.
    """
    epoch = _epoch()
    for path in (root, *root.rglob("*")):
        is_program = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (epoch, epoch))
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "DPKG_DEB_THREADS_MAX": "1"}
    command = ["dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{level}", "--build", str(root), str(package)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _epoch() -> int:
    """When the commit was made, in seconds; SOURCE_DATE_EPOCH where there is no git."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        return int(given)
    command = ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        raise Unbuildable(f"{CHECKOUT} is no git checkout: set SOURCE_DATE_EPOCH to the seconds of its date") from None


if __name__ == "__main__":
    main()
