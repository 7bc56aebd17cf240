"""`add`: sales into the spool by hand."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from agent.clock import SystemClock
from agent.commands.options import ConfigOption, load
from agent.errors import LocalFault
from wire.framing import LINES_SUFFIXES

REASONS_SHOWN = 20
BAR_BYTES_LEAST = 4 * 1024 * 1024
"""A shorter file is stored before anybody could read the bar."""

EXAMPLES = """\b
Examples:
  scout-agent add sales.jsonl
  scout-agent add sales.jsonl --from-line 120001   go on after Ctrl-C
  zcat sales.jsonl.gz | scout-agent add -"""


def add(
    file: Annotated[str, typer.Argument(help="A file of sales (JSON, array or JSONL), or - for standard input.")],
    config: ConfigOption = None,
    *,
    from_line: Annotated[int, typer.Option("--from-line", min=1, help="Leave out the lines before this one.")] = 1,
) -> None:
    """Put sales into the spool by hand. Returns once they are safe; works with the agent stopped.

    Up to folder.file_bytes_max all good sales are stored, or none. A longer file must be JSONL; it is stored in steps,
    and if that is cut short, the message says from which line on to repeat. Repeating what is stored sends it again:
    sales that have a transaction_id still count once. Exit status: 0 all stored, 1 some refused or none stored.
    """
    from agent.adding import Tally, add_sales  # noqa: PLC0415
    from agent.space import space_of  # noqa: PLC0415
    from agent.spool import Spool  # noqa: PLC0415

    loaded, tally, reasons = load(config), Tally(), count(1)
    name = "standard input" if file == "-" else file
    with _opened(file) as source, _moving(source) as moved:
        spool = Spool(
            loaded.spool_file,
            loaded.device.id,
            clock=SystemClock(),
            rng=random.SystemRandom(),
            space=space_of(loaded),
        )
        with closing(spool):
            try:
                add_sales(
                    spool,
                    source,
                    tally,
                    lines_only=name.lower().endswith(LINES_SUFFIXES),
                    document_bytes_max=loaded.folder.file_bytes_max,
                    from_line=from_line,
                    told=lambda sale: _tell(f"{name}, line {sale.line}: {sale.reason}", next(reasons)),
                    moved=moved,
                )
            except (LocalFault, OSError) as fault:
                raise LocalFault(f"{name}: {fault}{_how_far(tally.rows, tally.line)}") from None
            except KeyboardInterrupt:
                typer.echo(f"\nscout-agent: stopped.{_how_far(tally.rows, tally.line)}", err=True)
                raise typer.Exit(130) from None
    typer.echo(f"{tally.rows} sales stored" + (f", {tally.refused} refused" if tally.refused else ""))
    if tally.refused:
        raise typer.Exit(1)


def _how_far(rows: int, line: int) -> str:
    if not line:
        return " Nothing was stored."
    return f" {rows:,} sales are stored, all up to line {line}. To go on: add --from-line {line + 1}"


def _tell(reason: str, number: int) -> None:
    """All reasons of a few bad lines; of a file full of them, enough to see what it is."""
    if number <= REASONS_SHOWN:
        typer.echo(reason, err=True)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115  (closed below: only opening it may fail in these words)
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}") from None
    with source:
        yield source


@contextmanager
def _moving(source: BinaryIO) -> Iterator[Callable[[int], None]]:
    """A progress bar for a long file on a terminal; otherwise silence."""
    length = Path(source.name).stat().st_size if isinstance(source.name, str) and source.seekable() else 0
    hidden = length < BAR_BYTES_LEAST or not sys.stderr.isatty()
    with typer.progressbar(length=length, label="adding", file=sys.stderr, hidden=hidden) as bar:
        yield bar.update
