"""`export`: batches onto a USB stick."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, JsonOption, load

EXAMPLES = """\b
Examples:
  scout-agent export /media/stick          what the server doesn't have yet
  scout-agent export /media/stick --all    and what is still kept beside it"""


def export(
    directory: Annotated[Path, typer.Argument(help="A folder on the stick, made if missing.")],
    config: ConfigOption = None,
    *,
    settled: Annotated[bool, typer.Option("--all", help="Also sales that the server has and that are kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what the server doesn't have yet onto a USB stick.

    Safe to repeat; sales stay here too. In the back office `scout-server import` takes them from there. Exit status: 1
    when something is not on the stick.
    """
    from agent import export as exporting  # noqa: PLC0415

    loaded = load(config)
    clock, rng = SystemClock(), random.SystemRandom()
    with _progress() as progress:
        done = exporting.export(loaded, directory, settled=settled, clock=clock, rng=rng, progress=progress)
    if as_json:
        typer.echo(orjson.dumps(asdict(done)).decode())
    else:
        for problem in done.problems:
            typer.echo(f"ATTENTION  {problem}", err=True)
        if done.same_storage:
            typer.echo(f"ATTENTION  {directory} is on the same storage as the spool: is a stick mounted?", err=True)
        typer.echo(
            f"{done.rows:,} sales in {done.batches:,} batches, {done.bytes / 1e6:,.1f} MB, are in {done.directory} "
            f"({done.already_there:,} batches were there already). Unmount the stick before pulling it out."
        )
    if done.problems:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    with typer.progressbar(length=0, label="exporting", file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield show
