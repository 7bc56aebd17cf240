"""What a field technician sees: one screen, whether the daemon lives or not.

May be relied on: counts come from the spool itself and are read without writing. What only the daemon knows
(its last fault) it leaves in a small file. Exit status 0 is well, 1 needs attention, 2 is broken.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from agent.board import DaemonFacts, ReportedFault
from agent.clock import Clock
from agent.config import Config
from agent.daemon_lock import is_held
from agent.errors import CredentialsRefused, LocalFault
from agent.spool import SpoolState, read_state
from agent.token import TokenFile

TOKEN_DUE_DAYS = 5
WAITING_TOO_LONG_S = 3600.0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `status` shows."""

    device: str
    version: str
    running: bool
    running_since: str | None
    epoch: str | None
    rows_not_sent: int
    rows_accepted: int
    rows_set_aside: int
    rows_settled: int
    oldest_unsettled_at: str | None
    last_accepted_at: str | None
    last_accepted_by: str | None
    last_settled_at: str | None
    rejected_files: int
    spool_bytes: int
    clock_synced: bool
    token_expires_at: str | None
    token_days_left: float | None
    last_fault: ReportedFault | None
    attention: tuple[str, ...]  # each: what is the matter, and what to do next
    broken: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0 well, 1 attention, 2 broken."""
        return 2 if self.broken else 1 if self.attention else 0


def look(config: Config, *, clock: Clock, version: str) -> Status:
    """Look at spool, token and daemon; what can't be read is part of the answer."""
    attention: list[str] = []
    broken: list[str] = []
    spool = _spool_state(config, broken)
    running = is_held(config.spool_file.parent)
    facts = _facts(config.status_file) if running else None
    if not running:
        broken.append("the agent is not running: start it (systemctl start scout-agent)")
    expires_at, days_left = _token(config, clock, attention)
    rejected = _rejected_files(Path(config.folder.path))
    if rejected:
        attention.append(
            f"{rejected} files could not be taken whole: see {config.folder.path}/rejected, each has a .reason.txt"
        )
    if spool and spool.set_aside_rows:
        attention.append(f"{spool.set_aside_rows} sales are set aside: tell the back office")
    fault = facts.last_fault if facts else None
    if fault:
        attention.append(f"{fault.message}: {fault.next_step}")
    if facts and facts.space_short:
        attention.append(facts.space_short)
    if spool and spool.oldest_unsettled_at and _age_s(clock, spool.oldest_unsettled_at) > WAITING_TOO_LONG_S:
        attention.append("sales wait for more than an hour: check this shop's internet connection")
    return Status(
        device=config.device.id,
        version=version,
        running=running,
        running_since=facts.started_at if facts else None,
        epoch=spool.epoch if spool else None,
        rows_not_sent=spool.unsealed_rows + spool.waiting_rows if spool else 0,
        rows_accepted=spool.accepted_rows if spool else 0,
        rows_set_aside=spool.set_aside_rows if spool else 0,
        rows_settled=spool.settled_rows if spool else 0,
        oldest_unsettled_at=spool.oldest_unsettled_at if spool else None,
        last_accepted_at=spool.last_accepted_at if spool else None,
        last_accepted_by=spool.last_accepted_by if spool else None,
        last_settled_at=spool.last_settled_at if spool else None,
        rejected_files=rejected,
        spool_bytes=spool.spool_bytes if spool else 0,
        clock_synced=clock.is_synced(),
        token_expires_at=expires_at.isoformat() if expires_at else None,
        token_days_left=days_left,
        last_fault=fault,
        attention=tuple(attention),
        broken=tuple(broken),
    )


def lines_of(status: Status, *, clock: Clock) -> list[str]:
    """The screen, on 80 columns."""
    state = "running" if status.running else "NOT RUNNING"
    since = f" since {_shown(clock, status.running_since)}" if status.running_since else ""
    by = f" (by {status.last_accepted_by})" if status.last_accepted_by else ""
    token = "none" if status.token_days_left is None else f"{status.token_days_left:.1f} days left"
    rows = [
        ("device", f"{status.device}, scout-agent {status.version}"),
        ("agent", state + since),
        ("sales not sent", f"{status.rows_not_sent:,}"),
        ("sent, no receipt yet", f"{status.rows_accepted:,}"),
        ("set aside", f"{status.rows_set_aside:,}"),
        ("oldest sale here", _shown(clock, status.oldest_unsettled_at)),
        ("last sent", _shown(clock, status.last_accepted_at) + by),
        ("last receipt", _shown(clock, status.last_settled_at)),
        ("receipted, still kept", f"{status.rows_settled:,}"),
        ("files rejected", f"{status.rejected_files:,}"),
        ("spool", f"{status.spool_bytes / 1e6:,.1f} MB"),
        ("clock", "synchronised" if status.clock_synced else "not synchronised"),
        ("token", token),
    ]
    lines = [f"{name:<23}{value}" for name, value in rows]
    lines += [f"BROKEN     {text}" for text in status.broken]
    lines += [f"ATTENTION  {text}" for text in status.attention]
    return lines if status.exit_status else [*lines, "All is well."]


def _spool_state(config: Config, broken: list[str]) -> SpoolState | None:
    try:
        return read_state(config.spool_file)
    except LocalFault as fault:
        broken.append(str(fault))
        return None


def _facts(path: Path) -> DaemonFacts | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DaemonFacts)
    except (OSError, msgspec.MsgspecError):
        return None


def _token(config: Config, clock: Clock, attention: list[str]) -> tuple[datetime | None, float | None]:
    try:
        expires_at = TokenFile(config.token_file).read().expires_at
    except CredentialsRefused as fault:
        attention.append(f"{fault}: {fault.next_step}")
        return None, None
    if expires_at is None:
        attention.append("the token never expires and will be refused: issue another one")
        return None, None
    days_left = (expires_at - clock.now()).total_seconds() / 86_400
    if days_left < TOKEN_DUE_DAYS:
        attention.append(f"the token has {max(0.0, days_left):.1f} days left: issue another one")
    return expires_at, days_left


def _rejected_files(folder: Path) -> int:
    return sum(1 for _ in (folder / "rejected").glob("*.reason.txt"))


def _age_s(clock: Clock, at: str) -> float:
    return (clock.now() - datetime.fromisoformat(at)).total_seconds()


def _shown(clock: Clock, at: str | None) -> str:
    """A moment and how long ago that is."""
    if at is None:
        return "-"
    age_s = max(0.0, _age_s(clock, at))
    for unit, seconds in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if age_s >= 2 * seconds:
            return f"{at[:19].replace('T', ' ')} UTC, {age_s // seconds:.0f} {unit} ago"
    return f"{at[:19].replace('T', ' ')} UTC, {age_s:.0f} seconds ago"
