"""`config check`: whether the config is good, and all that follows from it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
import typer

from agent.commands.options import ConfigOption, JsonOption, load
from agent.config import Config

EXAMPLES = """\b
Examples:
  scout-agent config check
  scout-agent config check --config ./config.toml --json"""

SECRET_KEYS = {"server.api_key", "upload.proxy"}

app = typer.Typer(help="The configuration file.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand though it is alone."""


@app.command(epilog=EXAMPLES)
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Check the config file, and show all that follows from it.

    Keys that the file leaves out are marked as defaults. What is secret is not shown. Exit status: 0 good, 1 not.
    """
    from agent.transport import client_of  # noqa: PLC0415

    loaded = load(config)
    client_of(loaded).close()  # proxy and authority are good, too
    if as_json:
        typer.echo(orjson.dumps(dict(_places(loaded)) | {key: value for key, value, _ in _keys(loaded)}).decode())
        return
    for name, place in _places(loaded):
        typer.echo(f"{name:<11}{place}")
    typer.echo()
    for key, value, is_default in _keys(loaded):
        typer.echo(f"{key:<32}{orjson.dumps(value).decode()}{'  (default)' if is_default else ''}")
    typer.echo("\nThe config is good.")


def _places(config: Config) -> Iterator[tuple[str, str]]:
    yield "device", config.device.id
    yield "folder", config.folder.path or "-"
    yield "tail", config.tail.path or "-"
    yield "local HTTP", ", ".join(filter(None, (config.local_http.listen, config.local_http.socket))) or "-"
    yield "spool", str(config.spool_file)
    yield "token", str(config.token_file)
    yield "bucket", config.bucket_url
    yield "endpoint", config.ingest_url
    yield "heartbeat", config.heartbeat_url
    yield "next token", config.token_url


def _keys(config: Config) -> Iterator[tuple[str, Any, bool]]:
    """Every key of every section, its value, and whether that is the default."""
    for section in msgspec.structs.fields(Config):
        for key in msgspec.structs.fields(section.type):
            name, value = f"{section.name}.{key.name}", getattr(getattr(config, section.name), key.name)
            shown = "[not shown]" if name in SECRET_KEYS and value else value
            yield name, shown, value == key.default
