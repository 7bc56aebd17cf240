"""Looks at this device, whether the daemon lives or not, and gathers what it sees into one `Status`.

May be relied on: nothing is written, nothing waits for a network, and what can't be read is part of the
answer. Whoever may read config and spool sees the spool itself; anybody else what the daemon published last.
"""

import os
import shutil
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent import config as configuration
from agent.board import DaemonFacts
from agent.clock import Clock
from agent.config import Config
from agent.errors import (
    ConfigForbidden,
    ConfigMissing,
    CredentialsRefused,
    LocalFault,
    Misconfigured,
    SpoolForbidden,
    SpoolRefused,
)
from agent.files import signature_of
from agent.lock import is_running
from agent.published import as_of_now, published_for
from agent.space import limits_of
from agent.spool_view import SpoolView, view
from agent.token import TokenFile
from agent.verdict import ENROL, Problem, Status, spool_problem
from wire.record import format_instant


@dataclass(frozen=True, slots=True)
class Places:
    """What of the config a look needs. None: the config doesn't say, or there is no such limit."""

    device: str | None
    spool_file: Path
    token_file: Path
    rejected_folders: tuple[Path, ...]
    spool_bytes_max: int | None = None
    device_key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """A status, and whether the daemon saw it because this user may not look."""

    status: Status
    is_published: bool


def places_of(config: Config) -> Places:
    """Where a look finds what it needs."""
    return Places(
        config.device.id,
        config.spool_file,
        config.token_file,
        config.rejected_folders,
        _spool_bytes_max(config),
        config.device_key_file,
    )


def _spool_bytes_max(config: Config) -> int | None:
    try:
        return limits_of(config).bytes_max
    except OSError:
        return None  # the disk can't be asked now


def status_of(config_file: Path, *, clock: Clock, version: str) -> Sight:
    """What this user may see of the device.

    Raises LocalFault when that is nothing: config or spool is closed to them, and no daemon has published.
    """
    try:
        places, problem = places_in(config_file)
        published = published_for(places.device, places.spool_file.parent)
        running = is_running(places.spool_file.parent)
        daemon = as_of_now(published).daemon if published and running else None
        status = look(
            places,
            running=running,
            daemon=daemon,
            published=published,
            clock=clock,
            version=version,
            config_problem=problem,
        )
        return Sight(status, is_published=False)
    except (ConfigForbidden, SpoolForbidden) as forbidden:
        published = published_for()
        if published is None:
            message = f"{forbidden}, and no running agent has published its status. Run: sudo scout-agent status"
            raise LocalFault(message) from None
        return Sight(as_of_now(published), is_published=True)


def look(
    places: Places,
    *,
    running: bool,
    daemon: DaemonFacts | None,
    published: Status | None,
    clock: Clock,
    version: str,
    config_problem: Problem | None = None,
) -> Status:
    """Look at spool, token and disk. Raises SpoolForbidden when this user may not.

    `published` tells the token's expiry to who may read the spool but not the token.
    """
    spool, spool_problem = _spool(places, clock)
    expires_at, token_problem = _token(places.token_file, published)
    is_enrolled = places.device_key_file is not None and signature_of(places.device_key_file) is not None
    free_bytes = _free_bytes(places.spool_file.parent)
    rejected = {folder: _rejected_files(folder) for folder in places.rejected_folders}
    return Status(
        seen_at=format_instant(clock.now()),
        version=version,
        device=places.device or (spool.state.device_id if spool else None),
        running=running,
        daemon=daemon,
        config_problem=config_problem,
        spool_problem=spool_problem,
        token_problem=token_problem,
        rejected_in=tuple(str(folder) for folder, files in rejected.items() if files),
        rejected_files=sum(rejected.values()),
        clock_synced=clock.is_synced(),
        token_expires_at=expires_at,
        token_days_left=_days_left(expires_at, clock),
        enrolled=is_enrolled,
        disk_free_bytes=free_bytes,
        spool_bytes_max=places.spool_bytes_max,
        **(_of_spool(spool, places.spool_bytes_max, free_bytes) if spool else {}),
    )


def places_in(config_file: Path) -> tuple[Places, Problem | None]:
    """Where things lie; when the config is refused, as far as it tells, and why it is refused.

    Raises ConfigForbidden.
    """
    try:
        return places_of(configuration.load(config_file)), None
    except ConfigForbidden:
        raise
    except ConfigMissing:
        problem = Problem("not_enrolled", f"this device is not enrolled yet: {config_file} does not exist", ENROL)
        return _places_despite(config_file), problem
    except Misconfigured as refused:
        problem = Problem("config_refused", str(refused), "mend it; scout-agent config check says when it is good")
        return _places_despite(config_file), problem


def _places_despite(config_file: Path) -> Places:
    """Where things lie as far as a refused config tells, and else at the packaged places."""
    try:
        table = tomllib.loads(config_file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, tomllib.TOMLDecodeError):
        table = {}

    def told(section: str, key: str) -> str | None:
        keys = table.get(section)
        value = keys.get(key) if isinstance(keys, dict) else None
        return value if isinstance(value, str) and value and "\0" not in value else None

    spool = Path(told("spool", "directory") or configuration.SpoolSection().directory)
    folder = told("folder", "path")
    return Places(
        told("device", "id"),
        spool / "spool.db",
        Path(told("server", "token_file") or spool / "token"),
        (*((Path(folder) / "rejected",) if folder else ()), spool / "rejected"),
        device_key_file=spool / configuration.DEVICE_KEY_FILE,
    )


def _spool(places: Places, clock: Clock) -> tuple[SpoolView | None, Problem | None]:
    try:
        seen = view(places.spool_file, clock=clock)
    except SpoolForbidden:
        raise
    except (LocalFault, SpoolRefused) as fault:
        return None, spool_problem(fault)
    return seen, _problem_of(seen, places)


def _problem_of(seen: SpoolView, places: Places) -> Problem | None:
    """Why this agent can't use a spool that can be read."""
    owner = seen.state.device_id
    if places.device not in (None, owner):
        message = f"the spool belongs to device {owner}, not {places.device}"
        return Problem("spool_of_other_device", message, f"set device.id back to {owner}")
    return None


def _of_spool(seen: SpoolView, bytes_max: int | None, free_bytes: int | None) -> dict[str, Any]:
    """The fields that the spool fills."""
    state = seen.state
    return {
        "spool_version": seen.version,
        "epoch": state.epoch,
        "rows_not_sent": state.unsealed_rows + state.waiting_rows,
        "rows_accepted": state.accepted_rows,
        "rows_set_aside": state.set_aside_rows,
        "rows_settled": state.settled_rows,
        "rows_lost": state.lost_rows,
        "rows_last_hour": seen.rows_last_hour,
        "oldest_unsent_at": seen.oldest_unsent_at,
        "oldest_unsent_age_s": seen.oldest_unsent_age_s,
        "last_accepted_at": state.last_accepted_at,
        "last_accepted_by": state.last_accepted_by,
        "last_settled_at": state.last_settled_at,
        "spool_bytes": state.spool_bytes,
        "hours_to_full": _hours_to_full(seen, bytes_max, free_bytes),
    }


def _hours_to_full(seen: SpoolView, bytes_max: int | None, free_bytes: int | None) -> float | None:
    """Until no more sales fit, if none leaves: settled ones make room first. None while none comes."""
    rooms = [free_bytes] if free_bytes is not None else []
    if bytes_max is not None:
        rooms.append(max(0, bytes_max - seen.state.spool_bytes))
    if not rooms or not seen.rows_last_hour:
        return None
    return min(rooms) / (seen.rows_last_hour * seen.bytes_per_row) + seen.state.settled_rows / seen.rows_last_hour


def _token(path: Path, published: Status | None) -> tuple[str | None, Problem | None]:
    """When the token expires, and what is wrong with the file."""
    if published and _is_closed(path):
        return published.token_expires_at, published.token_problem
    try:
        expires_at = TokenFile(path).read().expires_at
    except CredentialsRefused as fault:
        return None, Problem("token", f"{fault}: nothing is delivered", fault.next_step)
    if expires_at is None:
        return None, Problem("token", "the token never expires and will be refused", "issue another one")
    return format_instant(expires_at), None


def _is_closed(path: Path) -> bool:
    """Whether there is a file that this user may not read."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK, effective_ids=True)


def _days_left(expires_at: str | None, clock: Clock) -> float | None:
    if expires_at is None:
        return None
    return (datetime.fromisoformat(expires_at) - clock.now()).total_seconds() / 86_400


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _rejected_files(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.glob("*.reason.txt"))
    except OSError:
        return 0  # this user may not look into the till's folder
