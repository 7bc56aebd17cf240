"""`dsn`, `migrate`, `after-restore`, `status`: the database, and what it says of the devices' sales."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from server import audit, fleet, operator
from server.clashes import explain
from server.commands.audit import say_alarms
from server.commands.options import AsJson, Data, DatabaseUrl
from server.config import find_database, now
from server.errors import Misconfigured
from server.schema import migrate as migrate_schema
from server.schema import plan as plan_schema
from server.schema import reached_by_public


def dsn(data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Print the URL of the database, password included: psql "$(scout-server dsn --data DIR)"."""
    typer.echo(find_database(data, database_url, os.environ))


def migrate(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL and change nothing.")] = False,
    move_aside: Annotated[
        bool, typer.Option("--move-aside", help="Move what stands in the way to schema scout_before.")
    ] = False,
) -> None:
    """Bring the database to this version's tables, views and functions. Safe to repeat.

    What another program made under one of our names is listed, and nothing is changed, unless --move-aside is
    given. On a Supabase project the private bucket and its upload policies are made, too.
    """
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        if dry_run:
            due = plan_schema(connection)
            if due.clashes and not move_aside:
                raise Misconfigured(explain(due.clashes))
            for statement in due.statements():
                typer.echo(statement)
            return
        applied = migrate_schema(connection, move_aside=move_aside)
        reached = reached_by_public(connection)
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to apply: the database is up to date")
    if reached:
        typer.echo("Not ours, but within reach of every device's token, because everybody may (PUBLIC):", err=True)
        for name in reached:
            typer.echo(f"  {name}", err=True)
        typer.echo("Where that is not meant: revoke all on … from public.", err=True)


def after_restore(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Tell the devices that the database was restored from a backup.

    Run it once after each restore, before 'serve' and 'load' begin again. At its next call home every device asks
    about all batches that it keeps; what the backup lacks is loaded from the bucket, or sent once more. A restore also
    brings back tokens and devices that were revoked since the backup: until 'devices confirm-revoked', no token is
    renewed and no device enrolled, and codes that were not used are void.
    """
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        heard, last = operator.devices_heard(connection)
        if not yes:
            typer.confirm(f"{heard} devices will ask again about all they keep. Was the database restored?", abort=True)
        with connection.transaction():
            operator.begin_generation(connection)
            fleet.after_restore(connection, now())
    typer.echo(f"{heard} devices will ask again; the last of them called home {last or 'never'}, says the backup")
    typer.echo("no token is renewed until: scout-server devices confirm-revoked")


def status(data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show how far each device's sales have come: files, rows, what waits, what was refused, how long it took.

    The p95 is that of the last hour: of 100 sales 95 took no longer from bronze to gold, and from the sale to bronze.
    """
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        devices = operator.ingestion_status(connection)
        silent, alarms = audit.silent_devices(connection), audit.open_alarms(connection)
    if as_json:
        typer.echo(json.dumps([asdict(device) for device in devices], default=str))
        return
    p95 = f"{'p95 to gold':>13}{'to bronze':>11}"
    typer.echo(f"{'device':<24}{'rows':>12}{'last hour':>11}{'waiting':>9}{'lag':>8}{p95}  last loaded")
    for device in devices:
        at = f"{device.last_loaded_at:%Y-%m-%d %H:%M:%S}" if device.last_loaded_at else "never"
        typer.echo(
            f"{device.device_id:<24}{device.rows_loaded:>12,}{device.rows_last_hour:>11,}{device.rows_waiting:>9,}"
            f"{device.lag_s:>7.0f}s{_seconds(device.etl_lag_p95_s):>13}{_seconds(device.capture_lag_p95_s):>11}  {at}"
        )
        if device.files_quarantined or device.last_error:
            typer.echo(f"{'':<24}{device.files_quarantined} files in quarantine; {device.last_error or ''}")
    if not devices:
        typer.echo("no device is known yet: scout-server devices code NAME, or scout-server tokens issue --name NAME")
    say_alarms(silent, alarms)


def _seconds(lag_s: int | None) -> str:
    return "" if lag_s is None else f"{lag_s:,}s"
