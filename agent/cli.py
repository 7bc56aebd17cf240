"""The command line of the agent: joins the commands, and prints a problem as one sentence.

Exit status: 0 well; 1 a problem, said in one line; 64 wrong usage. `status` answers 0 well, 1 attention,
2 broken.
"""

import sys
from typing import Annotated

import structlog
import typer

from agent import VERSION
from agent.commands import config, spool
from agent.commands.add import add
from agent.commands.run import run
from agent.commands.status import status
from agent.errors import ScoutAgentError

EXIT_USAGE = 64

app = typer.Typer(
    help="Takes sales from this shop's till, keeps them safe, and delivers them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(status)
app.command()(add)
app.add_typer(config.app, name="config")
app.add_typer(spool.app, name="spool")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scout-agent {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; print a problem as one sentence instead of a traceback."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        result = app(standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"scout-agent: {error} (scout-agent --help lists what there is)", err=True)
        sys.exit(EXIT_USAGE)
    except typer.Abort:
        sys.exit(130)
    except ScoutAgentError as error:
        typer.echo(f"scout-agent: {error}", err=True)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)
