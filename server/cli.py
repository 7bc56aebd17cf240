"""`scout-server`: parse, build, call. What each command does lies in the room it calls.

Exit status: 0 done, 1 it could not be done (one line says why and what to do), 64 wrong usage.
Results go to stdout, everything else to stderr. No secret is ever printed but what was asked for.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, cast

import psycopg
import structlog
import typer

from server import importing, operator, secrets, supervisor, tokens
from server.buckets import URLS, open_bucket
from server.clashes import explain
from server.config import Address, bucket_url, find_bucket, find_data, find_database, now
from server.database import open_pool
from server.errors import Misconfigured, ServerError
from server.etl import TargetResult, run_etl
from server.loader import LoadSummary
from server.loader import load as load_objects
from server.loop import Loop
from server.schema import migrate as migrate_schema
from server.schema import plan as plan_schema

EXIT_USAGE = 64
STOPPING = (signal.SIGTERM, signal.SIGINT)

# Wrong usage exits 2 by default, which `status` needs for "broken".
cast("Any", typer.BadParameter.__base__).exit_code = EXIT_USAGE

app = typer.Typer(
    name="scout-server",
    help="Receives the sales of the shops' devices and makes bronze, silver and gold of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they print local variables, secrets included
)
tokens_app = typer.Typer(help="Tokens with which devices and services come in.", no_args_is_help=True)
app.add_typer(tokens_app, name="tokens")

Data = Annotated[
    Path | None,
    typer.Option(help="Directory of the server that runs with 'up'. Default: SCOUT_DATA.", show_default=False),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="PostgreSQL 15 or newer, instead of --data. Default: DATABASE_URL.", show_default=False),
]
BucketUrl = Annotated[
    str | None,
    typer.Option(
        help=f"{URLS}, instead of --data's. Default: SCOUT_BUCKET. The environment holds its keys: AWS_ACCESS_KEY_ID "
        "and AWS_SECRET_ACCESS_KEY, or SUPABASE_SERVICE_ROLE_KEY.",
        show_default=False,
    ),
]
Listen = Annotated[str, typer.Option(help="HOST:PORT to answer on; port 0 takes a free one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool, typer.Option("--watch", help="Go on until stopped, looking every few seconds.")]


def main() -> None:
    """Run the command line; errors of ours become one line and exit status 1."""
    try:
        app()
    except ServerError as error:
        print(f"scout-server: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except psycopg.OperationalError as error:
        # Before any statement of ours: it speaks of the connection, and hides the password.
        print(f"scout-server: the database does not answer: {error}".rstrip(), file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
        print("scout-server: the database is not ours yet: run 'scout-server migrate' first.", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scout-server {installed_version('scout-edge')}")
        raise typer.Exit


@app.callback()
def configure(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Receive the sales of the shops' devices and make bronze, silver and gold of them."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter("the log level is debug, info, warning or error.")
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@app.command()
def up(data: Data = None, bucket: BucketUrl = None, listen: Listen = "127.0.0.1:8700") -> None:
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
        supervisor.up(directory, Address.parse(listen), os.environ, bucket_at=elsewhere, on_ready=_say_ready, stop=stop)


@app.command()
def serve(
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    listen: Listen = "127.0.0.1:8700",
) -> None:
    """Answer requests against a given database and bucket. Run 'load --watch' and 'etl --watch' beside it.

    The database must be migrated, and SUPABASE_JWT_SECRET set to the secret that signs the tokens.
    """
    url = find_database(data, database_url, os.environ)
    secret = secrets.need_jwt_secret(_directory(data, database_url), os.environ)

    def say(base_url: str) -> None:
        typer.echo(f"scout-server answers on {base_url}")

    with open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened, supervisor.Stop() as stop:
        supervisor.serve(url, opened, secret, Address.parse(listen), on_ready=say, stop=stop)


@app.command()
def dsn(data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Print the URL of the database, password included: psql "$(scout-server dsn --data DIR)"."""
    typer.echo(find_database(data, database_url, os.environ))


@app.command()
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
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to apply: the database is up to date")


@app.command()
def load(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Only this day's folder.")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Look through the whole bucket.")] = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Load what is new in the bucket into bronze: what devices await, and the folders of two days.

    --date loads one day's folder; --sweep everything, wherever it lies; --watch sweeps first and once a day.
    """
    if date and (watch or sweep):
        raise typer.BadParameter("--date loads one day and ends: leave --watch and --sweep out.")
    day = date.date() if date else None
    with (
        open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened,
        open_pool(find_database(data, database_url, os.environ)) as pool,
    ):
        if watch:
            step = supervisor.loading(pool, opened, lambda: None)
            _repeat("loader", lambda: _say_loaded(step(), as_json, quiet=True), supervisor.LOADER_INTERVAL_S)
        else:
            _say_loaded(load_objects(pool, opened, today=now().date(), day=day, sweep=sweep), as_json)


@app.command(name="after-restore")
def after_restore(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Tell the devices that the database was restored from a backup.

    Run it once after each restore, before 'serve' and 'load' begin again. At its next call home every device asks
    about all batches that it keeps; what the backup lacks is loaded from the bucket, or sent once more. A restore also
    brings back tokens and devices that were revoked since the backup: revoke them again.
    """
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        heard, last = operator.devices_heard(connection)
        if not yes:
            typer.confirm(f"{heard} devices will ask again about all they keep. Was the database restored?", abort=True)
        operator.begin_generation(connection)
    typer.echo(f"{heard} devices will ask again; the last of them called home {last or 'never'}, says the backup")


@app.command()
def status(data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show how far each device's sales have come: files, rows, what waits, what was refused."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        devices = operator.ingestion_status(connection)
    if as_json:
        typer.echo(json.dumps([asdict(device) for device in devices], default=str))
        return
    typer.echo(f"{'device':<24}{'rows':>12}{'last hour':>11}{'waiting':>9}{'lag':>8}  last loaded")
    for device in devices:
        at = f"{device.last_loaded_at:%Y-%m-%d %H:%M:%S}" if device.last_loaded_at else "never"
        typer.echo(
            f"{device.device_id:<24}{device.rows_loaded:>12,}{device.rows_last_hour:>11,}{device.rows_waiting:>9,}"
            f"{device.lag_s:>7.0f}s  {at}"
        )
        if device.files_quarantined or device.last_error:
            typer.echo(f"{'':<24}{device.files_quarantined} files in quarantine; {device.last_error or ''}")
    if not devices:
        typer.echo("no device is known yet: scout-server tokens issue --name DEVICE lets one in")


@app.command(name="import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Folders or files that 'scout-agent export' wrote.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take sales from a USB stick into bucket and bronze. Safe to repeat; what came another way is known.

    Says what is missing, damaged or refused, with exit status 1, and takes the rest.
    """
    with (
        open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened,
        open_pool(find_database(data, database_url, os.environ)) as pool,
    ):
        imported = importing.import_paths(pool, opened, paths, dry_run=dry_run)
    _say_imported(imported, as_json)
    if imported.problems:
        raise typer.Exit(1)


@app.command()
def etl(data: Data = None, database_url: DatabaseUrl = None, watch: Watch = False, as_json: AsJson = False) -> None:
    """Move what bronze received to production, silver and gold. Cost follows the new rows."""
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        if watch:
            _repeat("etl", lambda: _say_moved(run_etl(pool), as_json, quiet=True), supervisor.ETL_INTERVAL_S)
        else:
            _say_moved(run_etl(pool), as_json)


@tokens_app.command("issue")
def issue_token(
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
    directory = _directory(data, database_url)
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


def _directory(data: Path | None, database_url: str | None) -> Path | None:
    """The data directory that the database was found by, if it was."""
    return None if database_url else find_data(data, os.environ)


def _repeat(name: str, step: Callable[[], object], interval_s: float) -> None:
    """Run a loop until SIGTERM or SIGINT."""
    # Blocked before the loop's thread begins, so that they wait here.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with Loop(name, step, interval_s):
        signal.sigwait(STOPPING)


def _say_ready(ready: supervisor.Ready) -> None:
    typer.echo(
        f"scout-server is up\n"
        f"  base URL       {ready.base_url}\n"
        f"  data           {ready.data}\n"
        f"  JWT secret     {ready.secret_from}\n"
        f"  service token  {ready.service_token}\n"
        f"Let a device in:\n"
        f"  EDGE_TOKEN=$(scout-server tokens issue --data {ready.data} --name pi-05)"
    )
    sys.stdout.flush()


def _say_loaded(summary: LoadSummary, as_json: bool, quiet: bool = False) -> None:
    if quiet and not any(asdict(summary).values()):
        return
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        typer.echo(", ".join(f"{count} {word}" for word, count in asdict(summary).items()))
    sys.stdout.flush()


def _say_imported(imported: importing.Imported, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(imported)))
        return
    for problem in imported.problems:
        typer.echo(f"{problem.kind}: {problem.path!r}: {problem.reason}", err=True)
    would = "would be " if imported.dry_run else ""
    typer.echo(
        f"{imported.objects} good objects with {imported.rows} sales, {imported.stored} {would}new in the bucket; "
        f"{imported.loaded_before} objects loaded before, {imported.loaded} now, {imported.waiting} "
        f"waiting: {imported.accepted} sales new, {imported.duplicates} known already, {imported.rejected} refused; "
        f"{len(imported.problems)} problems"
    )


def _say_moved(results: list[TargetResult], as_json: bool, quiet: bool = False) -> None:
    if quiet and not any(result.read for result in results):
        return
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], default=str))
    else:
        for result in results:
            typer.echo(
                f"{result.target}: {result.read} read, {result.written} written, {result.already_there} already "
                f"there, {result.refused} fields refused, {result.lag_s:.0f} s behind"
            )
        if not results:
            typer.echo("nothing to move")
    sys.stdout.flush()
