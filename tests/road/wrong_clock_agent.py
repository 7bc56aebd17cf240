"""scout-agent on a machine whose clock is a year behind and that no time server sets. Only tests start it."""

import sys
from datetime import datetime, timedelta
from pathlib import Path

from agent.__main__ import UNNEEDED

for name in UNNEEDED:
    sys.modules[name] = None  # type: ignore[assignment]

from agent import clock, daemon  # noqa: E402  (after the line above, as the program itself does)


class WrongClock(clock.SystemClock):
    """A year behind, and known to be unset."""

    def now(self) -> datetime:
        """A year ago."""
        return super().now() - timedelta(days=365)

    def is_synced(self) -> bool:
        """No time server was heard."""
        return False


if __name__ == "__main__":
    daemon.SystemClock = WrongClock  # type: ignore[misc]
    daemon.main(Path(sys.argv[1]))
