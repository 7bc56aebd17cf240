"""What the commands share: the options that recur, and reading the config they name."""

from pathlib import Path
from typing import Annotated

import typer

from agent import config as configuration

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help=f"Config file; without it ${configuration.CONFIG_VARIABLE}, then {configuration.CONFIG_DEFAULT}.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def load(path: Path | None) -> configuration.Config:
    """Read the config named on the command line, or the usual one. Raises Misconfigured."""
    return configuration.load(path_of(path))


def path_of(path: Path | None) -> Path:
    """The config file named on the command line, or the usual one."""
    return path or configuration.default_path()
