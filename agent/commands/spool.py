"""`spool check` and `spool repair`: whether the spool is sound, and making it so."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson
import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, JsonOption, load

if TYPE_CHECKING:
    from agent.inspection import Inspection

EXAMPLES = """\b
Examples:
  scout-agent spool check              look at every record
  scout-agent spool repair --dry-run   what a repair would do
  scout-agent spool repair             do it, with the agent stopped"""

app = typer.Typer(help="The spool: where sales wait until the server has them.", epilog=EXAMPLES, no_args_is_help=True)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


@app.command(epilog=EXAMPLES)
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look at every record in the spool.

    Exit status: 0 sound, 1 attention, 2 damaged. Works beside a running agent.
    """
    from agent.inspection import inspect  # noqa: PLC0415

    seen = inspect(load(config).spool_file)
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(seen)
        typer.echo(orjson.dumps(fields | {"damage": seen.damage, "exit_status": seen.exit_status}).decode())
    else:
        for line in _lines(seen):
            typer.echo(line)
    raise typer.Exit(seen.exit_status)


@app.command(epilog=EXAMPLES)
def repair(config: ConfigOption = None, *, dry_run: DryRunOption = False) -> None:
    """Move a damaged spool aside, and salvage what is in it.

    All that can be read is salvaged, and nothing deleted. The agent must be stopped.
    """
    from agent.repair import plan_of, repair  # noqa: PLC0415

    loaded = load(config)
    plan = plan_of(loaded)
    would = "would be" if dry_run else "is"
    for reason in plan.reasons:
        typer.echo(f"found: {reason}")
    if plan.reasons:
        typer.echo(f"{loaded.spool_file} {would} moved into a new folder beside it, and what can be read salvaged.")
    for folder in plan.folders:
        typer.echo(f"{folder} {would} salvaged.")
    if plan.is_empty:
        typer.echo("Nothing is to be repaired.")
    elif not dry_run:
        with _progress() as seen:
            outcomes = repair(loaded, clock=SystemClock(), rng=random.SystemRandom(), seen=seen)
        for done in outcomes:
            typer.echo(f"{done.folder}: {done.rows_salvaged:,} sales salvaged, {done.rows_lost:,} lost. It is kept.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _page, _pages: None
        return
    with typer.progressbar(length=1, label="salvaging", file=sys.stderr) as bar:

        def seen(page: int, pages: int) -> None:
            bar.length = pages
            bar.update(page - bar.pos)

        yield seen


def _lines(seen: "Inspection") -> list[str]:
    lines = [f"{'spool':<23}{seen.file}"]
    if seen.state:
        counts = {
            "not sealed": seen.state.unsealed_rows,
            "waiting": seen.state.waiting_rows,
            "sent, no receipt yet": seen.state.accepted_rows,
            "set aside": seen.state.set_aside_rows,
            "receipted, still kept": seen.state.settled_rows,
        }
        lines += [f"{name:<23}{rows:,}" for name, rows in counts.items()]
    for epoch in seen.epochs:
        lines.append(
            f"epoch {epoch.epoch} head {epoch.head:,}, {epoch.records:,} records, {epoch.missing:,} missing, "
            f"{epoch.altered:,} altered, {epoch.lost:,} lost"
        )
    for folder in seen.moved_aside:
        state = (
            f"{folder.rows_salvaged:,} sales salvaged, {folder.rows_lost:,} lost; it is no longer needed"
            if folder.finished_at
            else "not salvaged yet: the agent does that by itself, or `scout-agent spool repair`"
        )
        lines.append(f"moved aside: {folder.folder}: {state}")
    lines += [f"DAMAGED    {problem}" for problem in seen.damage]
    if seen.unreadable:
        lines.append(f"UNREADABLE {seen.unreadable}")
    return [*lines, "The spool is sound."] if seen.exit_status == 0 else lines
