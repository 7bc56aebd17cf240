"""`config check`: whether the config is good, and what follows from it."""

import typer

from agent.commands.options import ConfigOption, load

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand though it is alone."""


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check the config file and say where everything will be."""
    from agent.transport import client_of  # noqa: PLC0415

    loaded = load(config)
    client_of(loaded).close()  # proxy and authority
    typer.echo(f"device     {loaded.device.id}")
    typer.echo(f"folder     {loaded.folder.path}")
    typer.echo(f"spool      {loaded.spool_file}")
    typer.echo(f"token      {loaded.token_file}")
    typer.echo(f"bucket     {loaded.bucket_url}")
    typer.echo(f"endpoint   {loaded.ingest_url}")
    typer.echo(f"heartbeat  {loaded.heartbeat_url}")
    typer.echo("The config is good.")
