"""`status`: how this device is doing."""

import shutil
import sys
import threading
from pathlib import Path
from typing import Annotated

import orjson
import typer

from agent import VERSION
from agent.clock import SystemClock
from agent.commands.options import ConfigOption, JsonOption, columns, is_terminal, path_of, uses_colours
from agent.errors import LocalFault
from agent.screen import draw, draw_age
from agent.status import Sight, status_of

REDRAW_S = 2.0
BROKEN = 2

_HOME, _CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"

EXAMPLES = """\b
Examples:
  scout-agent status                 one screen
  scout-agent status --watch         the same, every 2 seconds until Ctrl-C
  scout-agent status --json | jq .rows_not_sent"""


def status(
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Draw it again every 2 seconds until Ctrl-C.")] = False,
) -> None:
    """Show how this device is doing, and what to do next.

    Works with the agent stopped. Exit status: 0 all is well, 1 somebody has to see to something, 2 broken.
    """
    if watch and (as_json or not is_terminal()):
        raise typer.BadParameter("--watch redraws a terminal: leave it out for files, pipes and --json")
    clock = SystemClock()
    try:
        sight = _watch(path_of(config), clock) if watch else status_of(path_of(config), clock=clock, version=VERSION)
    except LocalFault as fault:
        typer.echo(f"scout-agent: {fault}", err=True)
        raise typer.Exit(BROKEN) from None
    if as_json:
        typer.echo(orjson.dumps(sight.status.to_fields() | {"published": sight.is_published}).decode())
    elif not watch:
        typer.echo("\n".join(_lines(sight, clock)))
    raise typer.Exit(sight.status.exit_status)


def _watch(config: Path, clock: SystemClock) -> Sight:
    """Redraw in place, one write a screen, until Ctrl-C; return what was seen last."""
    sight = status_of(config, clock=clock, version=VERSION)
    sys.stdout.write(_CLEAR)
    ended = threading.Event()
    try:
        while True:
            rows = shutil.get_terminal_size().lines - 1
            lines = _lines(sight, clock)[-rows:]  # the verdict is below
            sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
            sys.stdout.flush()
            ended.wait(REDRAW_S)
            sight = status_of(config, clock=clock, version=VERSION)
    except KeyboardInterrupt:
        return sight


def _lines(sight: Sight, clock: SystemClock) -> list[str]:
    lines = draw(sight.status, width=columns(), colours=uses_colours())
    return [*lines, *draw_age(sight.status, clock.now(), width=columns())] if sight.is_published else lines
