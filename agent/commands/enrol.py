"""`enrol`: this machine becomes the device that a one-time code names."""

import sys
from typing import Annotated

import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, path_of
from agent.verdict import START

STDIN = "-"

EXAMPLES = """\b
Examples:
  sudo scout-agent enrol --server https://sales.example.com --code CODE
  sudo scout-agent enrol --server https://sales.example.com
      asks for the code
  sudo scout-agent enrol --code - < code.txt
      where a config says which server"""


def enrol(
    server: Annotated[
        str | None, typer.Option("--server", help="Address of the server; needed where no config says it.")
    ] = None,
    code: Annotated[
        str | None,
        typer.Option("--code", help="The one-time code; - reads it from standard input; without it, it is asked for."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Let this machine in at the server, with a one-time code.

    The back office has the code: `scout-server devices code NAME`. A key is made here, with which the token is renewed
    by itself from then on. Where there is no config yet, one is written. A device that was enrolled before, or that
    has sales waiting, keeps its name and its sales; the code must be for it. Safe to repeat with the same code. An
    installed service is started, and a running agent goes on by itself.
    """
    from agent.enrolling import enrol_device  # noqa: PLC0415
    from agent.lock import is_running  # noqa: PLC0415
    from agent.service import start_service  # noqa: PLC0415
    from agent.transport import client_of  # noqa: PLC0415

    if code == STDIN:
        code = sys.stdin.readline()
    elif code is None:
        code = str(typer.prompt("Code from the back office"))
    done = enrol_device(path_of(config), server, code, clock=SystemClock(), client_of=client_of)
    typer.echo(f"This device is {done.device_id}. It renews its token by itself from now on.")
    if done.is_config_new:
        typer.echo(f"{done.config_file} was written: sales are taken from {done.till_folder}. Edit it if need be.")
    if is_running(done.spool_folder):
        return
    if start_service(done.config_file):
        typer.echo("The agent starts now; scout-agent status says how it does.")
    else:
        typer.echo(f"Now start the agent: {START}")
