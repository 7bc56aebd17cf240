"""`run`: the daemon in the foreground, as systemd starts it."""

from agent.commands.options import ConfigOption


def run(config: ConfigOption = None) -> None:
    """Run until stopped: what the systemd service does."""
    from agent import daemon  # noqa: PLC0415  (no other command loads it)

    daemon.main(config)
