"""A pause that a technician asked for: no uploads until it expires or is ended.

May be relied on
- It survives restarts and reboots, in a file beside the spool that only the agent writes.
- However wrong the wall clock is or becomes, it lasts no longer than asked for in time that the agent runs.
  Time is written down every WRITE_EVERY_S, and a reboot counts a whole such interval as spent.
- Where the clock was right when it began, it also ends at the time of day that was promised.
"""

import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from agent.clock import Clock
from agent.files import write_safely
from wire.record import format_instant

PAUSE_DEFAULT_S = 3600.0
PAUSE_MAX_S = 24 * 3600.0
"""A pause that somebody forgot costs at most a day of being up to date, and no sale."""

WRITE_EVERY_S = 60.0

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

log = structlog.get_logger()


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: how long it may still last, as of a moment of one boot."""

    left_s: float
    boot: str
    mono_ms: int
    ends_at: str | None  # by the wall clock, where that was to be believed


class Pause:
    """The pause of one spool."""

    def __init__(self, spool_directory: Path, clock: Clock) -> None:
        self._file = spool_directory / "pause.json"
        self._clock = clock
        self._kept = self._read()

    def begin(self, for_s: float) -> None:
        """Pause from now on, for PAUSE_MAX_S at most."""
        for_s = min(for_s, PAUSE_MAX_S)
        ends_at = format_instant(self._clock.now() + timedelta(seconds=for_s)) if self._clock.is_synced() else None
        self._keep(_Kept(for_s, self._clock.boot, self._clock.mono_ms(), ends_at))

    def end(self) -> None:
        """Go on at once."""
        self._keep(None)

    def left_s(self) -> float:
        """Seconds that the pause still lasts; 0 when there is none. Changes nothing."""
        return self._left_s(self._kept) if self._kept else 0.0

    def keep(self) -> float:
        """As `left_s`, for the daemon: also writes down the time spent, and ends a pause that is over."""
        kept, left_s = self._kept, self.left_s()
        if kept is not None and left_s <= 0.0:
            self.end()
        elif kept is not None and (kept.boot != self._clock.boot or kept.left_s - left_s >= WRITE_EVERY_S):
            self._keep(_Kept(left_s, self._clock.boot, self._clock.mono_ms(), kept.ends_at))
        return left_s

    def _left_s(self, kept: _Kept) -> float:
        left_s = min(kept.left_s, PAUSE_MAX_S)
        if kept.boot == self._clock.boot:
            left_s -= (self._clock.mono_ms() - kept.mono_ms) / 1000
        else:
            left_s -= WRITE_EVERY_S + self._clock.mono_ms() / 1000
        if kept.ends_at and self._clock.is_synced():
            left_s = min(left_s, (datetime.fromisoformat(kept.ends_at) - self._clock.now()).total_seconds())
        return max(0.0, left_s)

    def _read(self) -> _Kept | None:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("pause_not_read", file=str(self._file), error=type(error).__name__)
            return None

    def _keep(self, kept: _Kept | None) -> None:
        """Note it here, and in the file. A full disk must not stop deliveries: then it ends with this process."""
        self._kept = kept
        try:
            if kept is None:
                self._file.unlink(missing_ok=True)
            else:
                write_safely(os.fsencode(self._file), msgspec.json.encode(kept))
        except OSError as error:
            log.warning("pause_not_written", file=str(self._file), error=error.strerror)


def duration_s(text: str) -> float | None:
    """Seconds of "90s", "30m", "2h", "1h30m" or "1d"; None when it is none of these."""
    if not re.fullmatch(r"(\d{1,6}[smhd])+", text, re.ASCII):
        return None
    return float(sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))
