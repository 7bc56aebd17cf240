"""The one call home: what a device reports, and what it hears back about the batches it awaits.

May be relied on: `Reply.parse` refuses an answer to another report (the nonce tells), so a cached or
foreign answer settles nothing. Unknown fields on either side are ignored.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated

import msgspec

from wire.record import format_instant

AWAITED_MAX = 500
"""Batch names in one report. More would make one report's cost depend on the length of an outage."""

RANGES_MAX = 100
"""Unsettled ranges named for one epoch; what lies beyond is merged into the last one."""

BOOTS_MAX = 100
"""Boots named in one report. A device that boots more often than that before it is heard names the rest later."""

SETTLED = "settled"
UNKNOWN = "unknown"

_RESEND = re.compile("resend ([1-9][0-9]{0,5})")


class NotAReply(ValueError):
    """This answer is no reply to our report."""


@dataclass(frozen=True, slots=True)
class EpochState:
    """Where an epoch stands on the device: its highest seq, and the runs that are not settled yet.

    `lost`: runs that were in a spool that was damaged and can't be read any more. What the server holds of them
    is no loss: the device may no longer know that it was settled.
    """

    epoch: str
    head: int
    unsettled: tuple[tuple[int, int], ...]
    lost: tuple[tuple[int, int], ...] = ()  # runs that a damaged card lost for good


@dataclass(frozen=True, slots=True)
class BootState:
    """When a boot of the device began by the server's clock, measured during a call home.

    A record's corrected time is `zero_at` plus its `mono_ms`, right to within `error_ms`.
    """

    boot: str
    zero_at: str  # the server's time when mono_ms of this boot was 0
    error_ms: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a device says of itself."""

    nonce: str
    version: str
    sent_at: str
    clock: str
    boot: str
    mono_ms: int
    epochs: tuple[EpochState, ...]
    awaits: tuple[str, ...]
    waiting_rows: int  # in the spool, not yet accepted by anyone
    accepted_rows: int  # accepted, not yet settled
    set_aside_rows: int
    spool_bytes: int
    disk_free_bytes: int
    generation: str | None = None  # the database's, as last heard
    oldest_unsettled_at: str | None = None
    token_expires_at: str | None = None
    boots: tuple[BootState, ...] = ()

    def to_json(self) -> bytes:
        """The report as it travels."""
        return msgspec.json.encode(self)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers. `batches` maps each awaited name to `settled`, `unknown` or `resend N`."""

    nonce: str
    server_time: str  # as format_instant writes it, whatever offset the server gave
    generation: str
    keep_for_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)]
    batches: dict[str, str] = field(default_factory=dict)
    renew_token: bool = False

    @classmethod
    def parse(cls, body: bytes, nonce: str) -> "Reply":
        """Read the reply to the report that carried `nonce`; raise NotAReply for anything else."""
        try:
            reply = msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise NotAReply("the answer is not in the shape of a heartbeat's reply") from None
        if reply.nonce != nonce:
            raise NotAReply("the answer belongs to another report")
        return replace(reply, server_time=_instant(reply.server_time))


def resend_number(state: str) -> int | None:
    """The N of `resend N`, or None when the state is another one or malformed."""
    found = _RESEND.fullmatch(state)
    return int(found[1]) if found else None


def _instant(text: str) -> str:
    """Check the server's time: it decides what a device may forget, and is compared as text."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise NotAReply("server_time is not a time") from None
    if at.tzinfo is None or not 2000 <= at.year <= 2999:
        raise NotAReply("server_time has no offset, or is no time of this millennium")
    return format_instant(at)
