"""`prune`: what the landing table needs no more."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from server import prune as pruning
from server.commands.options import AsJson, Data, DatabaseUrl, Yes, progress_bar
from server.config import find_database
from server.database import open_pool


def prune(
    *,
    raw_days: Annotated[int, typer.Option("--raw-days", min=1, help="Keep what bronze received in so many days.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go and change nothing.")] = False,
    yes: Yes = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Remove old rows from the landing table scout_bronze.transactions_raw that production has.

    Production, silver and gold keep every sale, and a late copy of what went is still a duplicate. Refused, with
    nothing removed, while any of these rows waits for the ETL. May run beside everything else, and be broken off.
    """
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        with pool.connection() as connection:
            found = pruning.due(connection, raw_days)
        if not (dry_run or yes or not found.rows):
            typer.confirm(f"{_words(found)} will be removed. Go on?", abort=True, err=True)
        with progress_bar("removing") as progress:
            removed = 0 if dry_run else pruning.prune(pool, found, progress=progress)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "removed": removed, "dry_run": dry_run}, default=str))
        return
    typer.echo(f"{_words(found)} would be removed" if dry_run else f"{removed:,} rows removed")
    if found.lacking:
        typer.echo(f"{found.lacking:,} rows stay, for production lacks them: 'scout-server audit' says of which days")


def _words(found: pruning.Due) -> str:
    if not found.rows:
        return "no rows"
    span = f"received {found.oldest_at:%Y-%m-%d} to {found.newest_at:%Y-%m-%d}"
    return f"{found.rows - found.lacking:,} rows of {found.devices:,} devices, {span},"
