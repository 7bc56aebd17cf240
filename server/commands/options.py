"""What the commands share: the options that recur, and how a loop runs until it is stopped."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from server.buckets import URLS
from server.config import find_data
from server.loop import Loop

STOPPING = (signal.SIGTERM, signal.SIGINT)

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
Open = Annotated[
    bool,
    typer.Option("--open", help="Also take sales without a token from programs on this machine. For trying it out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool, typer.Option("--watch", help="Go on until stopped, looking every few seconds.")]


def directory_of(data: Path | None, database_url: str | None) -> Path | None:
    """The data directory that the database was found by, if it was."""
    return None if database_url else find_data(data, os.environ)


def repeat(name: str, step: Callable[[], object], interval_s: float) -> None:
    """Run a loop until SIGTERM or SIGINT."""
    # Blocked before the loop's thread begins, so that they wait here.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with Loop(name, step, interval_s):
        signal.sigwait(STOPPING)
