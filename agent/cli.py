"""The command line of the agent: parse, build, call.

Exit status: 0 well; 1 a problem, said in one line; 64 wrong usage. `status` answers 0 well, 1 attention,
2 broken.
"""

import random
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import structlog
import typer

from agent import VERSION
from agent import config as configuration
from agent.clock import SystemClock
from agent.errors import LocalFault, ScoutAgentError
from agent.logs import set_up_logs
from wire.framing import LINES_SUFFIXES

EXIT_USAGE = 64

app = typer.Typer(
    help="Takes sales from this shop's till, keeps them safe, and delivers them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(config_app, name="config")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help=f"Config file; without it ${configuration.CONFIG_VARIABLE}, then {configuration.CONFIG_DEFAULT}.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


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


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run until stopped: what the systemd service does."""
    from agent import daemon  # noqa: PLC0415  (status and add need not load it)

    set_up_logs(sys.stderr)
    daemon.run(_load(config), clock=SystemClock(), rng=random.SystemRandom())


@app.command()
def add(
    file: Annotated[str, typer.Argument(help="A file of sales (JSON, array or JSONL), or - for standard input.")],
    config: ConfigOption = None,
) -> None:
    """Put sales into the spool by hand. Returns once they are safe; works with the agent stopped."""
    from agent.adding import add_sales  # noqa: PLC0415

    loaded = _load(config)
    name, content = _read(file)
    lines_only = name.lower().endswith(LINES_SUFFIXES)
    added = add_sales(loaded, content, lines_only=lines_only, clock=SystemClock(), rng=random.SystemRandom())
    for refused in added.refused:
        typer.echo(f"{name}, line {refused.line}: {refused.reason}", err=True)
    typer.echo(f"{added.rows} sales stored" + (f", {len(added.refused)} refused" if added.refused else ""))
    if added.refused:
        raise typer.Exit(1)


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show how this device is doing. Exit 0 well, 1 attention, 2 broken; works with the agent stopped."""
    from agent import status as statuses  # noqa: PLC0415

    clock = SystemClock()
    seen = statuses.look(_load(config), clock=clock, version=VERSION)
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(seen)
        typer.echo(orjson.dumps(fields | {"exit_status": seen.exit_status}).decode())
    else:
        for line in statuses.lines_of(seen, clock=clock):
            typer.echo(line)
    raise typer.Exit(seen.exit_status)


@config_app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Check the config file and say where everything will be."""
    loaded = _load(config)
    typer.echo(f"device     {loaded.device.id}")
    typer.echo(f"folder     {loaded.folder.path}")
    typer.echo(f"spool      {loaded.spool_file}")
    typer.echo(f"token      {loaded.token_file}")
    typer.echo(f"bucket     {loaded.bucket_url}")
    typer.echo(f"endpoint   {loaded.ingest_url}")
    typer.echo(f"heartbeat  {loaded.heartbeat_url}")
    typer.echo("The config is good.")


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


def _load(path: Path | None) -> configuration.Config:
    return configuration.load(path or configuration.default_path())


def _read(file: str) -> tuple[str, bytes]:
    if file == "-":
        return "standard input", sys.stdin.buffer.read()
    try:
        return file, Path(file).read_bytes()
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}") from None
