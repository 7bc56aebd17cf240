"""`gold`: what analysts read, and what is refreshed or made anew of it."""

import json
import os
import textwrap
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from server import gold
from server.commands.options import AsJson, Data, DatabaseUrl
from server.config import find_database
from server.database import open_pool
from server.etl import rebuild_gold

app = typer.Typer(help="What analysts read.", no_args_is_help=True)


@app.command(name="list")
def list_(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a page, as docs/gold.md is.")] = False,
) -> None:
    """List every view and table for analysts: what a row of it is, what it means, and its columns with units."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        relations = gold.catalogue(connection)
    if as_json:
        typer.echo(json.dumps([asdict(relation) for relation in relations]))
    elif as_markdown:
        typer.echo(gold.markdown(relations), nl=False)
    else:
        for relation in relations:
            _say(relation)


@app.command()
def refresh(data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Count anew what is bought together (scout.gold_basket_patterns), which else happens once a day by itself.

    Takes half a minute for each year of 150,000 sales. Loading, the ETL and readers go on meanwhile.
    """
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        done = gold.refresh(pool)
    assert done  # without an age it is always done
    typer.echo(
        json.dumps(asdict(done))
        if as_json
        else f"scout.gold_basket_patterns: {done.rows:,} pairs, counted in {done.took_s:.1f} s"
    )


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


def _say(relation: gold.Relation) -> None:
    typer.echo(f"{relation.schema}.{relation.name} ({relation.kind})")
    typer.echo(textwrap.fill(relation.meaning, 110, initial_indent="  ", subsequent_indent="  "))
    for column in relation.columns:
        typer.echo(f"    {column.name:<28}{column.type:<26}{column.meaning}".rstrip())
    typer.echo()
