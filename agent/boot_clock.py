"""When this boot began by the server's clock: what corrects the times of sales taken with a wrong wall clock.

May be relied on: a measurement hangs on the monotonic clock alone, so nobody who sets the wall clock moves it.
Its error is at most half the round trip of the call that brought the server's time. A device whose clock is
never disciplined drifts by a second or two a day; that is not in `error_ms`.
"""

from datetime import datetime, timedelta

from wire.heartbeat import BootState
from wire.record import format_instant

SERVER_STEP_MS = 60_000
"""Measurements of one boot that differ by more than this, and their errors, saw two different server clocks."""


SURE_ENOUGH_MS = 500
"""Of a sale's time nobody asks for more: a surer measurement is not worth a write to the card."""


def measure(boot: str, server_time: str, sent_mono_ms: int, received_mono_ms: int) -> BootState:
    """Tell when `boot` began: the server read its clock at some moment between the two, taken to be the middle."""
    half_ms = (received_mono_ms - sent_mono_ms) / 2
    zero_at = datetime.fromisoformat(server_time) - timedelta(milliseconds=sent_mono_ms + half_ms)
    # Both clocks are read in whole milliseconds, which may hide one more.
    return BootState(boot, format_instant(zero_at), int(half_ms + 0.5) + 1)


def is_better(new: BootState, known: BootState | None) -> bool:
    """Whether to replace `known`: by a much surer measurement, or by any when the server's clock was set anew."""
    if known is None or (known.error_ms > SURE_ENOUGH_MS and 2 * new.error_ms <= known.error_ms):
        return True
    moved = abs(datetime.fromisoformat(new.zero_at) - datetime.fromisoformat(known.zero_at))
    return moved > timedelta(milliseconds=SERVER_STEP_MS + new.error_ms + known.error_ms)


def offset_s(measured: BootState, now: datetime, mono_ms: int) -> float:
    """How far the server's time is ahead of the wall clock that reads `now`, in seconds."""
    return (datetime.fromisoformat(measured.zero_at) + timedelta(milliseconds=mono_ms) - now).total_seconds()
