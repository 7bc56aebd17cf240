"""`files`: the ledger, and loading an object once more."""

import json
import os
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import psycopg
import typer

from server import ledger
from server.buckets import open_bucket
from server.commands.options import AsJson, BucketUrl, Data, DatabaseUrl, Device, Limit, say_loaded
from server.config import find_bucket, find_database
from server.database import open_pool

app = typer.Typer(help="What became of each object and post, and loading one once more.", no_args_is_help=True)

HELD_MAX = 20


class State(StrEnum):
    """As in the ledger."""

    found = "found"
    loaded = "loaded"
    quarantined = "quarantined"
    gone = "gone"


@app.command("list")
def list_(
    *,
    device: Device = None,
    state: Annotated[
        State | None,
        typer.Option(
            help="found waits for a loader, loaded is in bronze, quarantined can't be read, of gone rows are missing.",
            show_default=False,
        ),
    ] = None,
    date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only this day's folder.", show_default=False)
    ] = None,
    limit: Limit = 50,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List files, the newest first: number, state, lines that were new, known already and refused, and key."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        files = ledger.list_files(
            connection, device_id=device, state=state and state.value, day=date and date.date(), limit=limit
        )
    if as_json:
        typer.echo(json.dumps([asdict(file) for file in files], default=str))
        return
    typer.echo(f"{'number':>10}  {'state':<12}{'new':>8}{'known':>8}{'refused':>8}  key")
    for file in files:
        counts = (file.accepted, file.duplicates, file.rejected)
        shown = "".join(f"{'' if count is None else f'{count:,}':>8}" for count in counts)
        typer.echo(f"{file.file_id:>10}  {file.state:<12}{shown}  {file.key}")
    if not files:
        typer.echo("no such file")


@app.command()
def show(
    file: Annotated[str, typer.Argument(help="Number or key.", metavar="FILE")],
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a file: counts, what bronze holds of it now, why it was refused."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        found = [
            (each, ledger.rows_held(connection, each), ledger.lines_held(connection, each, HELD_MAX))
            for each in ledger.find_files(connection, file)
        ]
    if as_json:
        shown = [
            {**asdict(each), "rows_held": held, "lines_in_quarantine": [asdict(line) for line in lines]}
            for each, held, lines in found
        ]
        typer.echo(json.dumps(shown, default=str))
        return
    for each, held, lines in found:
        fields = {name: value for name, value in asdict(each).items() if value is not None and value != ""}
        for name, value in {**fields, "rows_held": held}.items():
            typer.echo(f"{name:<16}{f'{value:%Y-%m-%d %H:%M:%S %Z}' if isinstance(value, datetime) else value}")
        for line in lines:
            typer.echo(f"{'in quarantine':<16}{line.quarantine_id}: line {line.line}: {line.reason}", nl=False)
            typer.echo(f" ({line.outcome})" if line.outcome else "")


@app.command("reload")
def reload_(
    files: Annotated[list[str], typer.Argument(help="Numbers or keys.", metavar="FILE")],
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    as_json: AsJson = False,
) -> None:
    """Load objects from the bucket once more, say because rows were deleted or an object was mended.

    Lines that bronze has are duplicates; what is missing lands again.
    """
    with (
        open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened,
        open_pool(find_database(data, database_url, os.environ)) as pool,
    ):
        say_loaded(ledger.reload(pool, opened, files), as_json)
