"""`run`: the daemon in the foreground, as systemd starts it."""

import random
import sys

from agent.clock import SystemClock
from agent.commands.options import ConfigOption
from agent.config import default_path
from agent.logs import set_up_logs


def run(config: ConfigOption = None) -> None:
    """Run until stopped: what the systemd service does."""
    from agent import daemon  # noqa: PLC0415  (no other command loads it)

    set_up_logs(sys.stderr)
    daemon.run(config or default_path(), clock=SystemClock(), rng=random.SystemRandom())
