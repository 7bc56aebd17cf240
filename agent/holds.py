"""What keeps uploads back though the server would take them: a technician's pause, and quiet hours.

May be relied on: both end by themselves, and both are on the board while they last.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.board import Board
from agent.clock import Clock
from agent.config import Config
from agent.pause import Pause
from agent.quiet_hours import quiet_until
from wire.record import format_instant


@dataclass(frozen=True, slots=True)
class Hold:
    """What holds at this moment."""

    is_paused: bool
    is_quiet: bool


class Holds:
    """Looks at the pause and at the clock on the wall."""

    def __init__(self, config: Config, board: Board, clock: Clock) -> None:
        self._quiet_hours = config.upload.quiet_hours
        self._pause = Pause(config.spool_file.parent, clock)
        self._board = board
        self._clock = clock

    def pause(self, for_s: float) -> None:
        """Pause from now on; 0 seconds end a pause."""
        if for_s > 0.0:
            self._pause.begin(for_s)
        else:
            self._pause.end()

    def look(self) -> Hold:
        """What holds now. Quiet hours don't while the clock is not synchronised."""
        paused_s = self._pause.keep()
        is_known = self._clock.is_synced() or not self._quiet_hours
        quiet = quiet_until(self._quiet_hours, self._clock.now().astimezone()) if is_known else None
        self._board.note(
            paused_until=_to_the_minute(self._clock.now() + timedelta(seconds=paused_s)) if paused_s else None,
            quiet_until=format_instant(quiet) if quiet else None,
            quiet_hours_ignored=None if is_known else "the clock is not synchronised",
        )
        return Hold(paused_s > 0.0, quiet is not None)


def _to_the_minute(at: datetime) -> str:
    """A moment as it is shown: measured anew at every step, it must not seem to change."""
    return format_instant(datetime.fromtimestamp(round(at.timestamp() / 60) * 60, UTC))
