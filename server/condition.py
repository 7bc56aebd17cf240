"""How a device stands: what it reported last, and what of that needs somebody.

    a row of the database ─▶ Device ─▶ its conditions, the most urgent first

May be relied on: nothing that a device reports can raise. What is missing or makes no sense counts as not said.
Ages are by the server's clock. Where a device's own clock is wrong, the age of its oldest sale is right
nevertheless: it is the difference of two times of that one clock, and of two of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

TOKEN_DUE_S = 5 * 86_400.0
"""A renewal has failed for weeks by then."""
CLOCK_WRONG_S = 120.0
"""More than a call home ever takes."""
OLDEST_LATE_S = 24 * 3600.0
OLDEST_USUAL_S = 600.0
"""A sale is on its way for seconds; for this long when a line is down for a moment."""
DISK_LOW_BYTES = 256 * 1024 * 1024
"""The agent takes no more sales in at 64 MiB, unless it is told otherwise."""

BAD = "bad"
WARN = "warn"
CALM = "calm"
GOOD = "good"
LEVELS = (BAD, WARN, CALM, GOOD)


@dataclass(frozen=True, slots=True)
class Condition:
    """A word for how a device stands, and what to do about it."""

    name: str  # as in a URL
    words: str
    level: str
    advice: str


MISSING = Condition(
    "missing",
    "sales missing",
    BAD,
    "Sales that this device once had are neither here nor on the device. The server asks for them again by itself. "
    "What stays missing was on a card that is gone: 'scout-server gaps accept' closes the gap, with your reason.",
)
FORKED = Condition(
    "forked",
    "copied card",
    BAD,
    "Two cards deliver under one name: somebody copied this device's card. All sales are kept. Find the copy, and "
    "give it a name of its own.",
)
IMPLAUSIBLE = Condition(
    "implausible",
    "report can't be so",
    BAD,
    "It reports more sales, or more starts, than it can have had. That is not believed until rows prove it; if they "
    "don't come, look at its spool.",
)
LOCKED_OUT = Condition(
    "token-over",
    "token expired",
    BAD,
    "It keeps its sales and can't deliver them. A device with a key renews its token by itself once it has a line; "
    "otherwise give it a code to enrol with, or another token.",
)
SILENT = Condition(
    "silent",
    "silent",
    BAD,
    "It should have called home by now: it is silent for longer than in the two weeks before. Ask the shop whether it "
    "has power and internet; 'scout-agent doctor' on the device finds out why it does not deliver.",
)
SET_ASIDE = Condition(
    "set-aside",
    "batches set aside",
    BAD,
    "Batches were refused by every path and are tried again once a day. 'scout-agent set-aside list' on the device "
    "says why.",
)
DISK_LOW = Condition(
    "disk",
    "card nearly full",
    BAD,
    "Little room is left on the card. When there is none, the device takes no more sales in: the till keeps them.",
)
LATE = Condition(
    "late",
    "sales a day late",
    WARN,
    "It calls home, but a sale has waited on it for more than a day. 'scout-agent status' on the device says what "
    "holds it up.",
)
CLOCK = Condition(
    "clock",
    "clock wrong",
    WARN,
    "Its clock differs from ours by more than two minutes. Sale times are corrected here; give it a time server, or a "
    "clock battery.",
)
TOKEN_DUE = Condition(
    "token-due",
    "token ends soon",
    WARN,
    "It should have renewed its token long ago. Without one it keeps its sales and can't deliver them.",
)
REFUSED = Condition(
    "refused",
    "lines refused",
    WARN,
    "Lines or files of it are no transactions. They are held: replay them, mended if need be, or discard them.",
)
NEVER = Condition(
    "never",
    "never heard",
    CALM,
    "It was added and has not called home yet.",
)
WAITING = Condition(
    "waiting",
    "sales waiting",
    CALM,
    "Its line is down or slow. It delivers by itself when it can.",
)
WELL = Condition("well", "well", GOOD, "Nothing to do.")
REVOKED = Condition(
    "revoked",
    "revoked",
    CALM,
    "It is shut out, and may be let in again. If it was stolen, don't: make a code instead, with which another one "
    "takes its name.",
)

CONDITIONS = (
    MISSING, FORKED, IMPLAUSIBLE, LOCKED_OUT, SILENT, SET_ASIDE, DISK_LOW, LATE, CLOCK, TOKEN_DUE, REFUSED, NEVER,
    WAITING, WELL, REVOKED,
)  # fmt: skip
"""The most urgent first."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the server itself found out about a device."""

    missing: int = 0  # sales
    forked: int = 0  # sales
    refused: int = 0  # lines and objects that wait for a decision
    is_silent: bool = False  # it should have called home by now
    is_implausible: bool = False  # what it reports can't be so


NO_TROUBLE = Trouble()


@dataclass(frozen=True, slots=True)
class Device:
    """A device and what it reported last; None where it did not say."""

    device_id: str
    source: str
    added_at: datetime
    revoked_at: datetime | None
    heard_at: datetime | None
    silent_s: float | None  # since it was heard
    version: str | None
    clock: str | None
    clock_ahead_s: float | None  # of ours; negative when it is slow
    oldest_s: float | None  # how long its oldest sale has waited for a receipt
    token_expires_at: datetime | None
    token_left_s: float | None
    waiting_rows: int | None  # not yet delivered
    accepted_rows: int | None  # delivered, and no receipt yet
    set_aside_rows: int | None
    spool_bytes: int | None
    disk_free_bytes: int | None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Device":
        """Make sense of a row of the query `devices`."""
        at, heard_at, sent_at = row["at"], row["heard_at"], instant(row["sent_at"])
        silent_s = (at - heard_at).total_seconds() if heard_at else None
        expires_at = instant(row["reported_token_expires_at"]) or row["token_expires_at"]
        return cls(
            device_id=row["device_id"],
            source=row["source"],
            added_at=row["added_at"],
            revoked_at=row["revoked_at"],
            heard_at=heard_at,
            silent_s=silent_s,
            version=row["version"],
            clock=row["clock"],
            clock_ahead_s=(sent_at - heard_at).total_seconds() if sent_at and heard_at else None,
            oldest_s=waited_s(sent_at, instant(row["oldest_unsettled_at"]), silent_s or 0.0),
            token_expires_at=expires_at,
            token_left_s=(expires_at - at).total_seconds() if expires_at else None,
            waiting_rows=row["waiting_rows"],
            accepted_rows=row["accepted_rows"],
            set_aside_rows=row["set_aside_rows"],
            spool_bytes=row["spool_bytes"],
            disk_free_bytes=row["disk_free_bytes"],
        )


def conditions(device: Device, trouble: Trouble = NO_TROUBLE) -> tuple[Condition, ...]:
    """Everything that can be said of a device, the most urgent first; never nothing."""
    if device.revoked_at:
        return (REVOKED,)
    # What is set aside waits for somebody, and not for a line.
    is_on_its_way = device.waiting_rows or device.accepted_rows or not device.set_aside_rows
    oldest_s = (device.oldest_s or 0.0) if is_on_its_way else 0.0
    holds = {
        MISSING: trouble.missing > 0,
        FORKED: trouble.forked > 0,
        IMPLAUSIBLE: trouble.is_implausible,
        LOCKED_OUT: device.token_left_s is not None and device.token_left_s <= 0,
        SILENT: trouble.is_silent,
        SET_ASIDE: bool(device.set_aside_rows),
        DISK_LOW: device.disk_free_bytes is not None and device.disk_free_bytes < DISK_LOW_BYTES,
        LATE: oldest_s > OLDEST_LATE_S and not trouble.is_silent,
        CLOCK: abs(device.clock_ahead_s or 0.0) > CLOCK_WRONG_S,
        TOKEN_DUE: device.token_left_s is not None and 0 < device.token_left_s < TOKEN_DUE_S,
        REFUSED: trouble.refused > 0,
        NEVER: device.heard_at is None,
        WAITING: oldest_s > OLDEST_USUAL_S and (trouble.is_silent or oldest_s <= OLDEST_LATE_S),
    }
    return tuple(condition for condition in CONDITIONS if holds.get(condition)) or (WELL,)


def instant(text: str | None) -> datetime | None:
    """Read a time that a device wrote; None for what is none, or has no offset."""
    try:
        at = datetime.fromisoformat(text or "")
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def waited_s(sent_at: datetime | None, since: datetime | None, silent_s: float) -> float | None:
    """How long something has waited that had waited since `since` when a report was sent, `silent_s` ago."""
    if sent_at is None or since is None:
        return None
    return max((sent_at - since).total_seconds(), 0.0) + silent_s
