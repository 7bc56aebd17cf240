"""`scout-server`: joins the commands, and prints a problem as one line.

Exit status: 0 done, 1 it could not be done (one line says why and what to do), 64 wrong usage.
Results go to stdout, everything else to stderr. No secret is ever printed but what was asked for.
"""

import logging
import sys
from importlib.metadata import version as installed_version
from typing import Annotated, Any, cast

import psycopg
import structlog
import typer

from server.commands import (
    audit,
    backup,
    database,
    devices,
    files,
    gold,
    moving,
    pruning,
    quarantine,
    running,
    tokens,
)
from server.errors import ServerError

EXIT_USAGE = 64

# Wrong usage exits 2 by default, which `status` needs for "broken".
cast("Any", typer.BadParameter.__base__).exit_code = EXIT_USAGE

app = typer.Typer(
    name="scout-server",
    help="Receives the sales of the shops' devices and makes bronze, silver and gold of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they print local variables, secrets included
)
app.command()(running.up)
app.command()(running.serve)
app.command()(database.dsn)
app.command()(database.migrate)
app.command()(moving.load)
app.command()(backup.backup)
app.command()(backup.restore)
app.command(name="after-restore")(database.after_restore)
app.command()(database.status)
app.command(name="import")(moving.import_)
app.command()(moving.etl)
app.command()(pruning.prune)
app.command()(audit.audit)
app.add_typer(audit.app, name="gaps")
app.add_typer(files.app, name="files")
app.add_typer(gold.app, name="gold")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(devices.app, name="devices")
app.add_typer(tokens.app, name="tokens")


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
