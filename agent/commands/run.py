"""`run`: the daemon in the foreground, as systemd starts it."""

from agent.commands.options import ConfigOption

EXAMPLES = """\b
Examples:
  scout-agent run --config ./config.toml     by hand, until Ctrl-C
  sudo systemctl start scout-agent           as a service
  journalctl -u scout-agent -f               what it does"""


def run(config: ConfigOption = None) -> None:
    """Run until stopped: what the systemd service does.

    Takes sales from the till, keeps them in the spool and delivers them. It may be stopped or killed at any time.
    """
    from agent import daemon  # noqa: PLC0415  (no other command loads it)

    daemon.main(config)
