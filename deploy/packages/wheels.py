"""The locked wheels of one (architecture, Python) pair: downloaded once, by their hashes, and unpacked."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PYTHONS = ("3.11", "3.13")
"""Debian bookworm's and trixie's, and so Raspberry Pi OS's."""

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names and the wheels'."""

PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
"""The versions of glibc that wheels ask for; bookworm has 2.36. pip takes the first that fits."""

# pip asks such a marker of the Python that it runs on, not of the one that it downloads for.
_PYTHON_MARKER = re.compile(r"^[^#\n]*;.*\bpython_(full_)?version\b", re.MULTILINE)


def locked_wheels(lock: Path, architecture: str, python: str, cache: Path) -> list[Path]:
    """The wheels that a lock file names, for this pair, downloaded unless `cache` holds them.

    Raises CalledProcessError when pip can't get one, and ValueError for a lock that pip would misread.
    """
    text = lock.read_text()
    if _PYTHON_MARKER.search(text):
        raise ValueError(f"{lock}: a requirement depends on the version of Python: download it for each version apart")
    folder = cache / f"{architecture}-python{python}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _download(lock, architecture, python, unfinished)
        unfinished.rename(folder)
    return sorted(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Put what a wheel has to import into a folder; its scripts and other data are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            place = _place(entry.filename)
            if entry.is_dir() or place is None:
                continue
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.read(entry)
            target.write_bytes(content)
            # Some wheels mark whatever they hold.
            is_program = entry.external_attr >> 16 & 0o111 and content.startswith((b"#!", b"\x7fELF"))
            target.chmod(0o755 if is_program else 0o644)


def _place(name: str) -> str | None:
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    kind, _, rest = rest.partition("/")
    return rest if kind in ("purelib", "platlib") else None


def _download(lock: Path, architecture: str, python: str, folder: Path) -> None:
    platforms = [f"--platform={platform}_{ARCHITECTURES[architecture]}" for platform in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary=:all:", "--no-deps", "--implementation=cp", f"--python-version={python}", *platforms]
    subprocess.run([*command, f"--dest={folder}", f"--requirement={lock}"], check=True)
