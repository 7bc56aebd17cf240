"""`provision`: enrols this device by a file on its boot partition. What scout-agent-provision.service runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, path_of

REFUSED = 2

EXAMPLES = """\b
Examples:
  scout-agent provision                      by the file on the boot partition
  scout-agent provision ./scout-agent.toml   by another one

\b
A scout-agent.toml:
  server = "https://sales.example.com"
  code = "CODE"
  [local_http]
  listen = "127.0.0.1:8710"

What became of it is then said in scout-agent.txt beside it."""


def provision(
    file: Annotated[
        Path | None,
        typer.Argument(help="The file; without it, scout-agent.toml on the boot partition.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Enrol this device by a file on its boot partition.

    A service does so at each boot. The file holds a server and a code. Tries until the server answers, removes the file
    once the device is enrolled, and starts the agent. Exit status: 0 enrolled, or there is no such file; 2 the code was
    refused, or the file must be mended.
    """
    from agent.logs import set_up_logs  # noqa: PLC0415
    from agent.provisioning import CARDS  # noqa: PLC0415
    from agent.provisioning import provision as provision_by  # noqa: PLC0415
    from agent.service import start_service  # noqa: PLC0415
    from agent.transport import client_of  # noqa: PLC0415

    found = file or next((card for card in CARDS if card.exists()), None)
    if found is None:
        typer.echo(f"There is no {CARDS[0]}: nothing to do.")
        return
    set_up_logs(sys.stderr)
    done = provision_by(found, path_of(config), clock=SystemClock(), client_of=client_of, start_service=start_service)
    raise typer.Exit(0 if done else REFUSED)
