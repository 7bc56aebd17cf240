"""What the commands share: the options that recur, what they print alike, and how a loop runs until stopped."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from server.buckets import URLS
from server.config import find_data
from server.loader import LoadSummary
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
Listen = Annotated[
    str,
    typer.Option(help="HOST:PORT to answer on; port 0 takes a free one. Also: SCOUT_LISTEN.", envvar="SCOUT_LISTEN"),
]
Open = Annotated[
    bool,
    typer.Option("--open", help="Also take sales without a token from programs on this machine. For trying it out."),
]
Device = Annotated[str | None, typer.Option(help="Only this device's.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Watch = Annotated[bool, typer.Option("--watch", help="Go on until stopped, looking every few seconds.")]


def directory_of(data: Path | None, database_url: str | None) -> Path | None:
    """The data directory that the database was found by, if it was."""
    return None if database_url else find_data(data, os.environ)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show so many done of so many as a bar: on a terminal, from the first call on, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    with ExitStack() as ending:
        bar: Any = None

        def show(done: int, of: int) -> None:
            nonlocal bar
            if bar is None:
                bar = ending.enter_context(typer.progressbar(length=of, label=label, file=sys.stderr))
            bar.length = of
            bar.update(done - bar.pos)

        yield show


def duration(text: str) -> timedelta:
    """Read 90m, 12h or 7d. Raises typer.BadParameter for anything else."""
    found = re.fullmatch(r"(\d{1,4})([mhd])", text, re.ASCII)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time such as 7d, 12h or 90m.")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
    return timedelta(**{unit: int(found[1])})


def repeat(*loops: Loop) -> None:
    """Run loops until SIGTERM or SIGINT."""
    # Blocked before the loops' threads begin, so that they wait here.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with ExitStack() as running:
        for loop in loops:
            running.enter_context(loop)
        signal.sigwait(STOPPING)


def say_loaded(summary: LoadSummary, as_json: bool, quiet: bool = False) -> None:
    """Print what a run of the loader did; with `quiet`, nothing when it did nothing."""
    if quiet and not any(asdict(summary).values()):
        return
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        typer.echo(", ".join(f"{count} {word}" for word, count in asdict(summary).items()))
    sys.stdout.flush()
