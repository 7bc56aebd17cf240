"""What can be wrong on the device itself: files, rights, the spool, the disk, the clock, the token."""

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.device_key import read_key
from agent.doctor.finding import Outcome, attention, broken, ok
from agent.errors import CredentialsRefused, LocalFault, SpoolForbidden, SpoolRefused
from agent.spool_view import quick_check, view
from agent.token import TokenFile, claims_of
from agent.verdict import BRING_ONE, RENEWS_ITSELF, START, TELL, TOKEN_DUE_DAYS, is_passing, spool_problem

CHECK_LIMIT_S = 30.0
"""A big spool on a slow card takes longer; then the rest goes on without."""

ROLE = "edge_uploader"
_READ, _WRITE, _ENTER = 4, 2, 1


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the agent runs as: who owns its spool's directory."""

    number: int
    groups: frozenset[int]
    name: str


def account_of(directory: Path) -> Account:
    """The account that owns a directory; this process's own while there is none."""
    owner = directory.stat().st_uid if directory.exists() else os.geteuid()
    try:
        entry = pwd.getpwuid(owner)
    except KeyError:
        return Account(owner, frozenset(), str(owner))
    return Account(owner, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)), entry.pw_name)


def check_service(*, running: bool) -> Outcome:
    """Whether the daemon lives."""
    return ok("the agent runs") if running else broken("the agent is not running", START)


def check_rights(directory: Path, token_file: Path, account: Account) -> Outcome:
    """Whether the agent can write its own files, and nobody else read them."""
    if not directory.exists():
        return attention(f"{directory} does not exist yet", START)
    who = account.name
    strange = next((file for file, owner in _owners(directory) if owner != account.number), None)
    has_token = token_file.exists()
    if strange:
        found = broken(f"{strange} is not {who}'s: the agent can't write it", f"sudo chown -R {who}: {directory}")
    elif not _allows(directory, account, _READ | _WRITE | _ENTER):
        found = broken(f"{directory}: its owner may not write there", f"sudo chmod 750 {directory}")
    elif has_token and not _allows(token_file, account, _READ):
        found = broken(f"{token_file}: the agent may not read it", f"sudo chown {who}: {token_file}")
    elif directory.stat().st_mode & 0o007:
        found = attention(f"{directory}: everybody may look at this shop's sales", f"sudo chmod 750 {directory}")
    elif has_token and token_file.stat().st_mode & 0o077:
        found = attention(f"{token_file}: others may read the token", f"sudo chmod 600 {token_file}")
    else:
        found = ok(f"{directory} is {who}'s alone")
    return found


def check_spool(file: Path, device: str, clock: Clock, limit_s: float = CHECK_LIMIT_S) -> Outcome:
    """Whether the spool's file is whole, and this device's."""
    try:
        owner = view(file, clock=clock).state.device_id
        is_whole = quick_check(file, limit_s=limit_s, clock=clock)
    except SpoolForbidden:
        raise
    except (LocalFault, SpoolRefused) as fault:
        problem = spool_problem(fault)
        told = attention if is_passing(problem, running=False) else broken
        return told(problem.message, problem.next_step)
    if owner != device:
        return broken(f"{file} belongs to device {owner}, not {device}", f"set device.id back to {owner}")
    if not is_whole:
        return attention(f"{file} is so large that it could not be checked within {limit_s:.0f} s", "nothing")
    return ok(f"{file} is whole")


def check_disk(folder: Path, free_bytes_min: int, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> Outcome:
    """Whether there is room, and the disk still takes writes: a worn card turns read-only."""
    while not folder.exists():
        folder = folder.parent
    disk = statvfs(folder)
    free_bytes = disk.f_bavail * disk.f_frsize
    if disk.f_flag & os.ST_RDONLY:
        return broken(f"the disk below {folder} is read-only: the card may be worn out", f"replace the card; {TELL}")
    if disk.f_files and not disk.f_favail:
        return broken(f"the disk below {folder} can hold no further file", "remove files that nobody needs")
    if free_bytes < free_bytes_min:
        return broken(f"only {free_bytes / 1e6:,.0f} MB are free below {folder}", "remove files that nobody needs")
    return ok(f"{free_bytes / 1e9:,.1f} GB are free below {folder}")


def check_folder(path: str, account: Account) -> Outcome:
    """Whether the agent may take files out of a till's folder. "" means that this source is not used."""
    if not path:
        return ok("not used")
    folder = Path(path)
    if not folder.exists():
        return attention(f"{folder} does not exist yet; the agent makes it when it starts", START)
    if not folder.is_dir():
        return broken(f"{folder} is no folder", "check folder.path in the config")
    closed = _check_way(folder, account)
    if closed is None and not _allows(folder, account, _READ | _WRITE | _ENTER):
        closed = broken(
            f"{folder}: the agent ({account.name}) may not take files out",
            f"sudo chgrp {account.name} {folder}; sudo chmod g+rwx {folder}",
        )
    if closed is not None:
        return closed
    rejected = sum(1 for _ in _reasons(folder))
    if rejected:
        return attention(
            f"what is no sale lies in {rejected:,} {'file' if rejected == 1 else 'files'} of {folder}",
            f"read the .reason.txt files in {folder}/rejected",
        )
    return ok(f"the agent may take files out of {folder}")


def check_tail(path: str, account: Account) -> Outcome:
    """Whether the agent may read the files that a till appends to. "" means that this source is not used."""
    if not path:
        return ok("not used")
    folder = Path(path)
    if not folder.is_dir():
        return broken(f"{folder} does not exist, or is no folder", "check tail.path in the config")
    on_the_way = _check_way(folder, account)
    if on_the_way:
        return on_the_way
    closed = [file for file in (folder, *folder.glob("*.jsonl")) if not _allows(file, account, _READ)]
    if closed:
        return broken(
            f"{closed[0]}: the agent ({account.name}) may not read it",
            f"sudo chgrp -R {account.name} {folder}; sudo chmod -R g+rX {folder}",
        )
    return ok(f"the agent may read what the till appends to in {folder}")


def _check_way(folder: Path, account: Account) -> Outcome | None:
    """What closes the way to a folder."""
    for parent in reversed(folder.parents):
        if not _allows(parent, account, _ENTER):
            return broken(f"{parent}: the agent ({account.name}) may not pass", f"sudo chmod o+x {parent}")
    return None


def check_clock(clock: Clock, built_on: datetime) -> Outcome:
    """Whether this device's clock can be right."""
    if clock.now() < built_on:
        return broken(f"this device believes that it is {clock.now():%Y-%m-%d}", "sudo timedatectl set-ntp true")
    if not clock.is_synced():
        return attention("no time server sets this device's clock", "sudo timedatectl set-ntp true; allow NTP outside")
    return ok("a time server sets it")


def check_key(file: Path, device: str) -> Outcome:
    """Whether this device is enrolled, so that it renews its token by itself. The key is never shown.

    Raises PermissionError when this user may not look.
    """
    if file.exists() and not os.access(file, os.R_OK):
        raise PermissionError(f"{file}: this user may not read it")
    try:
        key = read_key(file)
    except CredentialsRefused as fault:
        return broken(str(fault), BRING_ONE)
    if key is None:
        return ok("not enrolled: its tokens are brought by hand")
    if key.device_id != device:
        return broken(f"{file} is the key of {key.device_id}, not of {device}", BRING_ONE)
    if file.stat().st_mode & 0o077:
        return attention(f"{file}: others may read the key", f"sudo chmod 600 {file}")
    return ok(f"{device} is enrolled, and renews its token by itself")


def check_token(file: Path, device: str, clock: Clock, *, enrolled: bool) -> Outcome:
    """Whether the token is one, this device's, and good for some days. It is never shown."""
    get_one = RENEWS_ITSELF if enrolled else BRING_ONE
    try:
        token = TokenFile(file).read()
    except CredentialsRefused as fault:
        return broken(str(fault), get_one)
    problem = _problem_of(claims_of(token.text), device)
    if problem or token.expires_at is None:
        return broken(problem or "the token never expires and will be refused", get_one)
    days_left = (token.expires_at - clock.now()).total_seconds() / 86_400
    if days_left <= 0:
        return broken(f"the token expired on {token.expires_at:%Y-%m-%d}", get_one)
    if days_left < TOKEN_DUE_DAYS:
        return attention(f"the token has {days_left:.1f} days left", get_one)
    return ok(f"{device}'s, {days_left:.1f} days left")


def _problem_of(claims: dict[str, Any], device: str) -> str | None:
    if claims.get("sub") != device:
        return f"the token is another device's than {device}"
    if claims.get("role") != ROLE:
        return "the token is not one for devices: its role is another"
    return None


def _owners(directory: Path) -> Iterator[tuple[Path, int]]:
    """The agent's files and who owns each; they come and go, and a disk of its own has a lost+found."""
    for file in directory.iterdir():
        with suppress(FileNotFoundError):
            if file.name != "lost+found":
                yield file, file.stat().st_uid


def _reasons(folder: Path) -> Iterator[Path]:
    return (folder / "rejected").glob("*.reason.txt")


def _allows(path: Path, account: Account, wanted: int) -> bool:
    """Whether a file's mode gives an account these rights. Access control lists are not looked at."""
    status = path.stat()
    if account.number == 0:
        return True
    shift = 6 if status.st_uid == account.number else 3 if status.st_gid in account.groups else 0
    return (status.st_mode >> shift) & wanted == wanted
