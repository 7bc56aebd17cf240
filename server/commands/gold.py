"""`gold`: what analysts read, and how it is made anew."""

import json
import os
from dataclasses import asdict

import typer

from server.commands.options import AsJson, Data, DatabaseUrl
from server.config import find_database
from server.database import open_pool
from server.etl import rebuild_gold

app = typer.Typer(help="What analysts read.", no_args_is_help=True)


@app.command()
def rebuild(data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Make the five tables of scout_gold anew from silver, after somebody changed them by hand.

    They keep themselves up to date: this gives the same rows. The ETL waits meanwhile, a minute for every million
    sales or so; readers see what was there before.
    """
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        results = rebuild_gold(pool)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results]))
        return
    for result in results:
        typer.echo(f"{result.target}: {result.written:,} rows")
