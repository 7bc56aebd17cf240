"""`set-aside list` and `set-aside replay`: batches that were refused for themselves."""

from typing import Annotated

import msgspec
import typer

from agent.commands.delivery import give
from agent.commands.options import ConfigOption, JsonOption, load
from agent.errors import LocalFault
from agent.orders import ReplayOrder

EXAMPLES = """\b
Examples:
  scout-agent set-aside list            which batches, and why
  scout-agent set-aside replay          try them all again
  scout-agent set-aside replay BATCH    try this one again"""

app = typer.Typer(help="Batches that were refused for themselves.", epilog=EXAMPLES, no_args_is_help=True)


@app.command("list", epilog=EXAMPLES)
def show(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show what was set aside, since when and why. It is kept, and tried again daily."""
    from agent.holdings import read_set_aside  # noqa: PLC0415

    batches = read_set_aside(load(config).spool_file)
    if as_json:
        typer.echo(msgspec.json.encode({"batches": batches}).decode())
        return
    for batch in batches:
        typer.echo(f"{batch.key}  {batch.rows:,} sales, refused {batch.refusals} times, since {batch.since or '?'}")
        typer.echo(f"    {batch.reason}")
    if not batches:
        typer.echo("Nothing is set aside.")


@app.command(epilog=EXAMPLES)
def replay(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys as `list` shows them; none means all.")] = None,
    config: ConfigOption = None,
) -> None:
    """Try batches again that were set aside.

    For when what troubled the server is mended; daily the agent does so by itself.
    """
    from agent.holdings import read_set_aside  # noqa: PLC0415

    loaded = load(config)
    known = {batch.key for batch in read_set_aside(loaded.spool_file)}
    unknown = sorted(set(keys or ()) - known)
    if unknown:
        raise LocalFault(f"{unknown[0]} is not set aside: see scout-agent set-aside list")
    if not known:
        typer.echo("Nothing is set aside.")
        return
    typer.echo(f"{len(keys or known)} batches are tried again. {give(loaded, ReplayOrder(tuple(keys or ())))}")
