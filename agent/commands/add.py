"""`add`: sales into the spool by hand."""

import random
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, load
from agent.errors import LocalFault
from wire.framing import LINES_SUFFIXES


def add(
    file: Annotated[str, typer.Argument(help="A file of sales (JSON, array or JSONL), or - for standard input.")],
    config: ConfigOption = None,
) -> None:
    """Put sales into the spool by hand. Returns once they are safe; works with the agent stopped."""
    from agent.adding import add_sales  # noqa: PLC0415

    loaded = load(config)
    name, content = _read(file)
    lines_only = name.lower().endswith(LINES_SUFFIXES)
    added = add_sales(loaded, content, lines_only=lines_only, clock=SystemClock(), rng=random.SystemRandom())
    for refused in added.refused:
        typer.echo(f"{name}, line {refused.line}: {refused.reason}", err=True)
    typer.echo(f"{added.rows} sales stored" + (f", {len(added.refused)} refused" if added.refused else ""))
    if added.refused:
        raise typer.Exit(1)


def _read(file: str) -> tuple[str, bytes]:
    if file == "-":
        return "standard input", sys.stdin.buffer.read()
    try:
        return file, Path(file).read_bytes()
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}") from None
