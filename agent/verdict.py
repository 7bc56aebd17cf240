"""What one look at a device saw, and what follows: each problem in plain words, with what to do next.

May be relied on: the problems are derived from what was seen and from nothing else. A problem's code keeps its
meaning. Exit status 0 is well, 1 needs attention, 2 is broken: sales are not taken, or nobody delivers them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from agent.board import DaemonFacts, ReportedFault
from agent.errors import ScoutAgentError, SpoolBusy, SpoolDamaged, SpoolMissing, SpoolOutdated, SpoolRefused

TOKEN_DUE_DAYS = 5
WAITING_TOO_LONG_S = 3600.0
NEARLY_FULL_HOURS = 24.0
CLOCK_WRONG_S = 300.0
"""The server refuses tokens that were issued so far in its future; certificates and dates suffer sooner."""

TELL = "tell the back office; delete nothing"
START = "sudo systemctl start scout-agent"
RENEWS_ITSELF = "nothing: the agent gets the next one by its key as soon as it reaches the server"
BRING_ONE = "ask the back office for a code, then: sudo scout-agent enrol --code CODE"
ENROL = "ask the back office for the command with a code: sudo scout-agent enrol --server URL --code CODE"
RESTART = "sudo systemctl restart scout-agent"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is the matter, and what to do next."""

    code: str
    message: str
    next_step: str


_OF_SPOOL: tuple[tuple[type[ScoutAgentError], str, str], ...] = (
    (SpoolMissing, "spool_missing", "nothing, on a new device; else check spool.directory in the config"),
    (SpoolBusy, "spool_busy", "try again in a minute"),
    (SpoolOutdated, "spool_outdated", RESTART),
    (SpoolRefused, "spool_newer", "install the newer agent again"),
    (SpoolDamaged, "spool_damaged", TELL),
    (ScoutAgentError, "spool_unreadable", "sudo scout-agent doctor"),
)


def spool_problem(fault: ScoutAgentError) -> Problem:
    """What it means that a spool can't be looked at."""
    code, next_step = next((code, step) for kind, code, step in _OF_SPOOL if isinstance(fault, kind))
    return Problem(code, str(fault), next_step)


def is_passing(problem: Problem, *, running: bool) -> bool:
    """A new device has no spool yet, a locked one is free again by itself, an old one is brought up to date."""
    return problem.code in ("spool_busy", "spool_outdated") or (problem.code == "spool_missing" and not running)


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `status` shows. docs/agent.md lists the names in its JSON; they stay."""

    seen_at: str
    version: str
    device: str | None
    running: bool
    daemon: DaemonFacts | None  # what only the running daemon knows
    config_problem: Problem | None
    spool_problem: Problem | None
    token_problem: Problem | None
    rejected_in: tuple[str, ...]
    rejected_files: int
    clock_synced: bool
    token_expires_at: str | None
    token_days_left: float | None
    disk_free_bytes: int | None
    spool_bytes_max: int | None
    enrolled: bool = False  # it has a key, and renews its token by itself
    # From here on what the spool says; empty when it can't be read.
    spool_version: int | None = None
    epoch: str | None = None
    rows_not_sent: int = 0
    rows_accepted: int = 0
    rows_set_aside: int = 0
    rows_settled: int = 0
    rows_lost: int = 0
    rows_last_hour: int | None = None
    oldest_unsent_at: str | None = None
    oldest_unsent_age_s: float | None = None
    last_accepted_at: str | None = None
    last_accepted_by: str | None = None
    last_settled_at: str | None = None
    spool_bytes: int | None = None
    hours_to_full: float | None = None

    @property
    def broken(self) -> tuple[Problem, ...]:
        """Why sales are not taken, or not delivered by anybody."""
        return tuple(_broken(self))

    @property
    def attention(self) -> tuple[Problem, ...]:
        """What a person should see to."""
        return tuple(_attention(self))

    @property
    def exit_status(self) -> int:
        """0 well, 1 attention, 2 broken."""
        return 2 if self.broken else 1 if self.attention else 0

    @property
    def last_fault(self) -> ReportedFault | None:
        """The daemon's last error."""
        return self.daemon.last_fault if self.daemon else None

    def to_fields(self) -> dict[str, Any]:
        """What `status --json` prints and the daemon publishes."""
        derived = {
            "exit_status": self.exit_status,
            "last_fault": self.last_fault,
            "broken": self.broken,
            "attention": self.attention,
        }
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields | {name: msgspec.to_builtins(value) for name, value in derived.items()}


def _is_new(seen: Status) -> bool:
    """Whether nothing was ever done here: then all the rest follows from the first step."""
    is_enrolled = seen.config_problem is None or seen.config_problem.code != "not_enrolled"
    has_spool = seen.spool_problem is None or seen.spool_problem.code != "spool_missing"
    return not (is_enrolled or has_spool or seen.running)


def _broken(seen: Status) -> Iterator[Problem]:
    if seen.config_problem:
        yield seen.config_problem
    if _is_new(seen):
        return
    if not seen.running:
        yield Problem("not_running", "the agent is not running", START)
    if seen.spool_problem and not is_passing(seen.spool_problem, running=seen.running):
        yield seen.spool_problem
    if seen.daemon and seen.daemon.intake_refused:
        yield Problem("intake_refused", f"no sale can be taken: {seen.daemon.intake_refused}", TELL)
    for source, reason in seen.daemon.source_faults if seen.daemon else ():
        yield Problem("source_fault", f"{source} takes no sales: {reason}", "scout-agent doctor")


def _attention(seen: Status) -> Iterator[Problem]:
    if _is_new(seen):
        return
    if seen.spool_problem and is_passing(seen.spool_problem, running=seen.running):
        yield seen.spool_problem
    if seen.daemon:
        yield from _attention_by_daemon(seen, seen.daemon)
    yield from _attention_for_token(seen)
    if seen.rows_set_aside:
        yield Problem("set_aside", f"the server refuses {seen.rows_set_aside:,} sales: they are set aside", TELL)
    if seen.rows_lost:
        message = f"the spool was damaged, and {seen.rows_lost:,} sales in it could not be read"
        yield Problem("sales_lost", message, "replace the SD card; the back office is told which sales are missing")
    if seen.rejected_files:
        yield Problem(
            "files_rejected",
            f"what is no sale lies in {seen.rejected_files:,} {'file' if seen.rejected_files == 1 else 'files'}",
            f"read the .reason.txt files in {' and '.join(seen.rejected_in)}",
        )
    if seen.oldest_unsent_age_s is not None and seen.oldest_unsent_age_s > WAITING_TOO_LONG_S:
        yield Problem("waiting_long", "sales wait for more than an hour", "check this shop's internet connection")
    if seen.hours_to_full is not None and seen.hours_to_full < NEARLY_FULL_HOURS:
        message = f"the spool is full in {seen.hours_to_full:.0f} hours at the present rate"
        yield Problem("nearly_full", message, "check this shop's internet connection, and free the disk")


def _attention_by_daemon(seen: Status, daemon: DaemonFacts) -> Iterator[Problem]:
    if daemon.paused_until:
        message = f"delivery is paused until {shown_time(daemon.paused_until)}"
        yield Problem("paused", message, "scout-agent resume")
    if daemon.config_refused:
        message = f"the changed config is not in force: {daemon.config_refused}"
        yield Problem("changed_config_refused", message, "mend it; scout-agent config check tells")
    if daemon.version != seen.version:
        message = f"version {daemon.version} still runs though {seen.version} is installed"
        yield Problem("restart_needed", message, RESTART)
    fault = daemon.last_fault
    if fault and not (fault.kind == "credentials" and seen.token_problem):
        yield Problem("last_fault", fault.message, fault.next_step)
    if daemon.kept_shortened:
        message = "the disk is nearly full: sales that the server has are kept for less time here"
        yield Problem("kept_shortened", message, "free the disk")
    if daemon.clock_offset_s is not None and abs(daemon.clock_offset_s) > CLOCK_WRONG_S:
        message = f"this device's clock is wrong by {abs(daemon.clock_offset_s):,.0f} s"
        yield Problem("clock_wrong", message, "timedatectl; allow NTP in this shop's network")


def _attention_for_token(seen: Status) -> Iterator[Problem]:
    """What stands in the way of a good token: without a key a person must see to it, with one the last try tells."""
    renewal_fault = seen.daemon.renewal_fault if seen.daemon else None
    is_due = seen.token_days_left is not None and seen.token_days_left < TOKEN_DUE_DAYS
    if seen.enrolled and not seen.clock_synced:
        is_due = False  # the date is not to be believed; the server says when the token is over
    if seen.token_problem:
        next_step = RENEWS_ITSELF if seen.enrolled else seen.token_problem.next_step
        yield replace(seen.token_problem, next_step=next_step)
    elif is_due:
        next_step = RENEWS_ITSELF if seen.enrolled else BRING_ONE
        yield Problem("token_due", _token_due(seen.token_days_left or 0.0), next_step)
    # That there was no way to the server is told by the last fault, and passes by itself.
    if renewal_fault and (renewal_fault.kind not in ("wait", "clock") or is_due or seen.token_problem):
        message = f"the token could not be renewed: {renewal_fault.message}"
        yield Problem("renewal_failed", message, renewal_fault.next_step)


def _token_due(days_left: float) -> str:
    if days_left <= 0.0:
        return "the token has expired: nothing is delivered"
    return f"the token has {days_left:.1f} days left"


def shown_time(at: str) -> str:
    """A moment as people read it."""
    return f"{at[:16].replace('T', ' ')} UTC"
