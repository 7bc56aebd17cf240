"""The command line of the agent: joins the commands, and prints a problem as one sentence.

Exit status: 0 well; 1 a problem, said in one line; 64 wrong usage. `status` answers 0 well, 1 attention,
2 broken.
"""

import sys
from typing import Annotated

import structlog
import typer

from agent import VERSION
from agent.commands import add, config, delivery, doctor, enrol, export, provision, run, set_aside, spool, status
from agent.errors import ScoutAgentError

EXIT_USAGE = 64

EXAMPLES = """\b
Begin with:
  scout-agent enrol             let this machine in at the server, with a code
  scout-agent config check      is the config good, and what follows from it?
  scout-agent status            how is this device, and what is to be done?
  scout-agent doctor            why does it not deliver?
  scout-agent COMMAND --help    more of each, with examples"""

# Plain help: it is read over ssh, on a phone, where boxes and colours are in the way.
app = typer.Typer(
    help="Takes sales from this shop's till, keeps them safe, and delivers them.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(epilog=run.EXAMPLES)(run.run)
app.command(epilog=enrol.EXAMPLES)(enrol.enrol)
app.command(epilog=provision.EXAMPLES)(provision.provision)
app.command(epilog=status.EXAMPLES)(status.status)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=add.EXAMPLES)(add.add)
app.command(epilog=delivery.PAUSE_EXAMPLES)(delivery.pause)
app.command(epilog=delivery.PAUSE_EXAMPLES)(delivery.resume)
app.command(epilog=delivery.SEND_EXAMPLES)(delivery.send)
app.add_typer(set_aside.app, name="set-aside")
app.command(epilog=export.EXAMPLES)(export.export)
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
        result = app(prog_name="scout-agent", standalone_mode=False)
    except typer.TyperException as error:
        message = str(error)
        # Without a command, the message is the help itself.
        is_help = message.startswith("Usage:")
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "scout-agent"
        sentence = message if is_help else f"scout-agent: {message} ({command} --help says what it takes)"
        typer.echo(sentence, err=True)
        sys.exit(EXIT_USAGE)
    except typer.Abort:
        sys.exit(130)
    except ScoutAgentError as error:
        typer.echo(f"scout-agent: {error}", err=True)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)
