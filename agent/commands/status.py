"""`status`: how this device is doing."""

from typing import Any

import msgspec
import orjson
import typer

from agent import VERSION
from agent.clock import SystemClock
from agent.commands.options import ConfigOption, JsonOption, load


def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show how this device is doing. Exit 0 well, 1 attention, 2 broken; works with the agent stopped."""
    from agent.status import lines_of, look  # noqa: PLC0415

    clock = SystemClock()
    seen = look(load(config), clock=clock, version=VERSION)
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(seen)
        typer.echo(orjson.dumps(fields | {"exit_status": seen.exit_status}).decode())
    else:
        for line in lines_of(seen, clock=clock):
            typer.echo(line)
    raise typer.Exit(seen.exit_status)
