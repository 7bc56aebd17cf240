"""Blank Debian roots for tests: trees made by mmdebstrap from where this machine's own apt gets its packages.

May be relied on: a root has what any Debian or Raspberry Pi OS lite has (`PACKAGES`) and nothing of ours. It is made
once and kept as a tarball, in `build/roots` or where SCOUT_TEST_ROOTS says; several may ask for it at once. Another
architecture's root takes some minutes, because each of its programs runs under emulation.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SUITES = ("bookworm", "trixie")
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "ca-certificates", "procps", "iproute2")
NEEDED = "apt-get install --no-install-recommends mmdebstrap qemu-user-static binfmt-support arch-test"
_INDEXES = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_EMULATED = {"arm64": "qemu-aarch64"}


def root_tar(suite: str, architecture: str = "amd64", packages: Collection[str] = ()) -> Path:
    """Return the tarball of a root with `PACKAGES` and `packages`; make it if nobody has yet."""
    return _made(suite, architecture, "apt", sorted({*PACKAGES, *packages}))


def extracted_tar(suite: str, architecture: str, packages: Collection[str]) -> Path:
    """Return the tarball of packages that are only unpacked, nothing of them run: a kernel, for one."""
    return _made(suite, architecture, "extract", sorted(packages))


def unpacked(tar: Path, folder: Path) -> Path:
    """Unpack a root into a folder, with every owner as it is in there; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", "--numeric-owner", f"--file={tar}", f"--directory={folder}"], check=True)
    return folder


def let_run(architecture: str) -> None:
    """Let this machine run programs of another architecture; say what to install where it can't."""
    if subprocess.run(["arch-test", architecture], capture_output=True, check=False).returncode == 0:
        return
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=True)
    subprocess.run(["update-binfmts", "--enable", _EMULATED[architecture]], check=False)
    subprocess.run(["arch-test", architecture], check=True)


def _made(suite: str, architecture: str, variant: str, packages: list[str]) -> Path:
    _demand("mmdebstrap", "arch-test", "update-binfmts")
    command = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--architectures={architecture}"]
    command.append(f"--include={','.join(packages)}")
    ingredients = hashlib.sha256(" ".join([*command, suite]).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("SCOUT_TEST_ROOTS", CHECKOUT / "build" / "roots"))
    tar = folder / f"{suite}-{architecture}-{ingredients}.tar"
    with _one_at_a_time(tar):
        if not tar.exists():
            print(f"making {tar}", file=sys.stderr)
            _make(command, suite, architecture, tar)
    return tar


def _make(command: list[str], suite: str, architecture: str, tar: Path) -> None:
    let_run(architecture)
    unfinished = tar.with_name(f"unfinished-{tar.name}")
    done = subprocess.run(
        [*command, suite, str(unfinished), *_sources(suite)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"mmdebstrap made no {suite} for {architecture}: {done.stderr[-2000:]}"
    unfinished.rename(tar)


def _sources(suite: str) -> list[str]:
    """The suite from wherever this machine's apt gets Debian; mmdebstrap's own choice where apt doesn't."""
    found = subprocess.run([*_INDEXES, "Label: Debian"], capture_output=True, text=True, check=True).stdout.split()
    return [f"deb {found[0]} {suite} main", f"deb {found[0]} {suite}-updates main"] if found else []


def _demand(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    assert not missing, f"{', '.join(missing)}: not found. {NEEDED}"


@contextmanager
def _one_at_a_time(tar: Path) -> Iterator[None]:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tar.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    # As a program: make these ahead of the tests that need them, python tests/roots.py bookworm arm64
    print(root_tar(*sys.argv[1:]))
