"""`quarantine`: what was refused, and what an operator makes of it."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from server import quarantine
from server.commands.options import AsJson, Data, DatabaseUrl, Device, Limit
from server.config import find_database
from server.database import open_pool
from server.errors import ServerError

app = typer.Typer(help="What was refused and is held: look, replay, or discard.", no_args_is_help=True)

ALL_MAX = 1_000_000
"""More than one wants to replay in one go."""

Number = Annotated[int, typer.Argument(help="As 'quarantine list' shows it.", metavar="NUMBER")]


@app.command("list")
def list_(
    *,
    device: Device = None,
    ended: Annotated[bool, typer.Option("--all", help="Also what was replayed or discarded.")] = False,
    limit: Limit = 50,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for a decision, the newest first."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        listed = quarantine.list_held(connection, device_id=device, ended=ended, limit=limit)
    if as_json:
        typer.echo(json.dumps([asdict(held) for held in listed], default=str))
        return
    for held in listed:
        where = held.key if held.line is None else f"{held.key} line {held.line}"
        why = f": {held.why}" if held.why else ""
        ended_as = f" ({held.outcome} {held.ended_at:%Y-%m-%d}{why})" if held.outcome else ""
        typer.echo(f"{held.quarantine_id:>8}  {held.held_at:%Y-%m-%d %H:%M}  {held.kind:<6}  {where}")
        typer.echo(f"{'':>8}  {held.reason}{ended_as}")
    if not listed:
        typer.echo("nothing waits for a decision" if not ended else "nothing is held")


@app.command()
def show(
    number: Number,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the line itself, byte for byte: it may hold a customer's data.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show where it came from, why it was refused, and what was decided."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        if raw:
            sys.stdout.buffer.write(quarantine.raw_of(connection, number))
            return
        held = quarantine.find_held(connection, number)
    if as_json:
        typer.echo(json.dumps(asdict(held), default=str))
        return
    for name, value in asdict(held).items():
        if value is not None:
            typer.echo(f"{name:<16}{value}")


@app.command()
def replay(
    numbers: Annotated[list[int] | None, typer.Argument(help="Lines, by number.", metavar="NUMBER")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every line that waits, say after an upgrade.")] = False,
    mended: Annotated[
        Path | None,
        typer.Option(
            "--with", help="Take this file's bytes instead of one line; - is standard input.", allow_dash=True
        ),
    ] = None,
    device: Device = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take held lines into bronze after all, as they are or mended. What came is kept either way.

    Exit status 1 when one is still refused; the others are taken.
    """
    if bool(numbers) == every or (mended and len(numbers or ()) != 1):
        raise typer.BadParameter("name lines by their numbers, or give --all; --with goes with one number.")
    edited = None if mended is None else _bytes_of(mended)
    refused = 0
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        if every:
            with pool.connection() as connection:
                listed = quarantine.list_held(connection, device_id=device, ended=False, limit=ALL_MAX)
            numbers = [held.quarantine_id for held in reversed(listed) if held.kind == "line"]
        for number in numbers or ():
            try:
                done = quarantine.replay(pool, number, edited)
            except (quarantine.NotReplayable, quarantine.UnknownHeld) as problem:
                refused += 1
                typer.echo(f"{number}: {problem}", err=True)
            else:
                typer.echo(
                    json.dumps(asdict(done))
                    if as_json
                    else f"{number}: {done.accepted} new in bronze, {done.duplicates} known already"
                )
    if not numbers:
        typer.echo("no line waits for a decision", err=True)
    if refused:
        raise typer.Exit(1)


@app.command()
def discard(
    numbers: Annotated[list[int], typer.Argument(help="As 'quarantine list' shows them.", metavar="NUMBER")],
    *,
    why: Annotated[str, typer.Option(help="Kept with it, for whoever asks later.")],
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Decide that these need nothing. They stay held, and can still be replayed."""
    if not why.strip():
        raise typer.BadParameter("say why, in a few words.", param_hint="--why")
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        done = quarantine.discard(pool, numbers, why.strip())
    for number in numbers:
        unknown = "unknown, or decided before: 'scout-server quarantine list --all' shows which"
        typer.echo(f"{number}: {'discarded' if number in done else unknown}")
    if len(done) < len(set(numbers)):
        raise typer.Exit(1)


def _bytes_of(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ServerError(
            f"{path} can't be read: {error.strerror}. Name the file that holds the mended line."
        ) from None
