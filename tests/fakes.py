"""Stand-ins for what tests can't control: only the clock. Storage, files, processes and sockets are real."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that moves when told to. `pass_s` is time passing; `now_is` is somebody setting the wall clock."""

    def __init__(self, now: datetime = datetime(2027, 3, 1, 2, 30, tzinfo=UTC), boot: str = "boot-1") -> None:
        self._now = now
        self._elapsed_s = 1000.0
        self._boot = boot
        self.synced = True

    @property
    def boot(self) -> str:
        """Identifies this boot of the machine."""
        return self._boot

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return self._now

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""
        return self._elapsed_s

    def mono_ms(self) -> int:
        """Milliseconds since the machine booted."""
        return round(self._elapsed_s * 1000)

    def is_synced(self) -> bool:
        """Whether the wall clock is to be believed."""
        return self.synced

    def sleep(self, seconds: float) -> None:
        """Let so much time pass at once."""
        if seconds > 0.0:
            self.pass_s(seconds)

    def pass_s(self, seconds: float) -> None:
        """Let time pass on every clock."""
        self._elapsed_s += seconds
        self._now += timedelta(seconds=seconds)

    def now_is(self, now: datetime) -> None:
        """Step the wall clock alone."""
        self._now = now

    def reboot(self, boot: str) -> None:
        """Begin another boot: the clocks that count from it begin anew."""
        self._boot = boot
        self._elapsed_s = 10.0
