"""What the commands share: the options that recur, and reading the config they name."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent import config as configuration
from agent.screen import WIDTH

COLUMNS_MIN = 40

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        readable=False,  # who may not read it hears so from us, and what to run
        help=f"Config file; without it ${configuration.CONFIG_VARIABLE}, then {configuration.CONFIG_DEFAULT}.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def load(path: Path | None) -> configuration.Config:
    """Read the config named on the command line, or the usual one. Raises Misconfigured."""
    return configuration.load(path_of(path))


def is_terminal() -> bool:
    """Whether somebody looks at what is printed, on something that can redraw."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def uses_colours() -> bool:
    """Whether colours are welcome: see no-color.org."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def columns() -> int:
    """How wide lines may be: as the terminal, and never more than 80."""
    return max(COLUMNS_MIN, min(WIDTH, shutil.get_terminal_size().columns)) if is_terminal() else WIDTH


def path_of(path: Path | None) -> Path:
    """The config file named on the command line, or the usual one."""
    return path or configuration.default_path()
