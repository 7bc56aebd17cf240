"""`tokens`: with which devices and services come in."""

import json
import os
from typing import Annotated

import psycopg
import typer

from server import secrets, tokens
from server.commands.options import AsJson, Data, DatabaseUrl, directory_of
from server.config import find_database, now

app = typer.Typer(help="Tokens with which devices and services come in.", no_args_is_help=True)


@app.command()
def issue(
    *,
    name: Annotated[str, typer.Option(help="The device's id, such as pi-05.")],
    days: Annotated[int, typer.Option(help="How long the token is good: a device's at most 30.")] = 30,
    role: Annotated[str, typer.Option(help="edge_uploader for a device, service_role for a service.")] = (
        tokens.EDGE_UPLOADER
    ),
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a new token, and nothing else: EDGE_TOKEN=$(scout-server tokens issue --name pi-05).

    A device that is not known yet is added. The token is signed with SUPABASE_JWT_SECRET, or with the secret
    that 'up' keeps in its directory.
    """
    url = find_database(data, database_url, os.environ)
    directory = directory_of(data, database_url)
    secret = secrets.need_jwt_secret(directory, os.environ)
    if directory is not None:
        secrets.refuse_other_secret(directory, secret, now())
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        added = role == tokens.EDGE_UPLOADER and tokens.add_device(connection, name)
        token = tokens.issue(connection, secret, name, role, days=days, now=now())
    if added:
        typer.echo(f"added device {name}", err=True)
    if as_json:
        identity = tokens.read(token, secret, now())
        typer.echo(json.dumps({"token": token, "device_added": added, **identity.claims}))
    else:
        typer.echo(token)
