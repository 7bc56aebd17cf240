"""`up` and `serve`: the server itself."""

import os
import sys

import typer

from server import secrets, supervisor
from server.buckets import open_bucket
from server.commands.options import BucketUrl, Data, DatabaseUrl, Listen, Open, directory_of
from server.config import Address, bucket_url, find_bucket, find_data, find_database, now

OPEN_TO_ALL = (
    "OPEN: any program on this machine may post sales in any device's name, without a token. For trying things out\n"
    "only; never behind a proxy.\n"
)


def up(data: Data = None, bucket: BucketUrl = None, listen: Listen = "127.0.0.1:8700", is_open: Open = False) -> None:
    """Run everything in one directory: PostgreSQL, bucket, endpoints, loader and ETL.

    The directory is made if it is missing; the first start takes a few seconds. SUPABASE_JWT_SECRET, where
    set, signs the tokens; else a secret is made and kept. Stop it with Ctrl-C or SIGTERM: it ends within 30 s.
    """
    directory = find_data(data, os.environ)
    if directory is None:
        raise typer.BadParameter("which directory? Give --data DIR, or set SCOUT_DATA.")
    url = find_bucket(data, bucket, os.environ)
    elsewhere = None if url == bucket_url(directory) else url
    with supervisor.Stop() as stop:
        supervisor.up(
            directory,
            Address.parse(listen),
            os.environ,
            bucket_at=elsewhere,
            is_open=is_open,
            on_ready=_say_ready,
            stop=stop,
        )


def serve(
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    listen: Listen = "127.0.0.1:8700",
    is_open: Open = False,
) -> None:
    """Answer requests against a given database and bucket. Run 'load --watch' and 'etl --watch' beside it.

    The database must be migrated, and SUPABASE_JWT_SECRET set to the secret that signs the tokens.
    """
    url = find_database(data, database_url, os.environ)
    directory = directory_of(data, database_url)
    secret = secrets.need_jwt_secret(directory, os.environ)
    previous = secrets.find_previous_secret(directory, os.environ, now())

    def say(base_url: str) -> None:
        typer.echo(f"{OPEN_TO_ALL if is_open else ''}scout-server answers on {base_url}")

    with open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened, supervisor.Stop() as stop:
        supervisor.serve(
            url,
            opened,
            secret,
            Address.parse(listen),
            previous=previous,
            is_open=is_open,
            on_ready=say,
            stop=stop,
            environment=os.environ,
        )


def _say_ready(ready: supervisor.Ready) -> None:
    typer.echo(
        f"{OPEN_TO_ALL if ready.is_open else ''}"
        f"scout-server is up\n"
        f"  base URL       {ready.base_url}\n"
        f"  data           {ready.data}\n"
        f"  JWT secret     {ready.secret_from}\n"
        f"  service token  {ready.service_token}\n"
        f"Let a device in, with an agent or without:\n"
        f"  scout-server devices code pi-05 --data {ready.data}\n"
        f"  EDGE_TOKEN=$(scout-server tokens issue --data {ready.data} --name pi-05)"
    )
    sys.stdout.flush()
