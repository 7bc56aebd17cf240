"""The spool seen from outside: read without writing, whether the daemon runs or not.

May be relied on: a look costs about the same with ten records as with a million; it takes no lock that an
intake or a delivery would wait for; nothing of a payload is in what it returns.
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from agent.clock import Clock
from agent.connection import SEQS_PER_EPOCH
from agent.errors import SpoolDamaged, SpoolOutdated, SpoolRefused
from agent.holdings import SpoolState, state_of
from agent.schema import VERSION, reading_database
from agent.statements import queries_of
from wire.record import RefusedLine, format_instant, from_line

ROW_OVERHEAD_BYTES = 40
"""What SQLite adds to a line: its key, its time and its share of the page."""

_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine: some milliseconds
_SQL = queries_of("spool_view")


@dataclass(frozen=True, slots=True)
class SpoolView:
    """What there is to see besides the counts."""

    state: SpoolState
    version: int
    oldest_unsent_at: str | None
    oldest_unsent_age_s: float | None  # None too when this device's clock can't have been right then
    rows_last_hour: int
    bytes_per_row: float


def view(path: Path, *, clock: Clock) -> SpoolView:
    """Look once. Raises LocalFault or SpoolRefused, sorted by what is the matter, with the file's name."""
    with reading_database(path) as connection:
        (version,) = connection.execute(_SQL["version"]).fetchone()
        _refuse_other_shape(version, path)
        captured_at, age_s = _oldest_unsent(connection, clock)
        (bytes_per_row,) = connection.execute(_SQL["bytes_per_row"]).fetchone()
        return SpoolView(
            state=state_of(connection, path),
            version=version,
            oldest_unsent_at=captured_at,
            oldest_unsent_age_s=age_s,
            rows_last_hour=_rows_since(connection, clock.now() - timedelta(hours=1)),
            bytes_per_row=(bytes_per_row or 0) + ROW_OVERHEAD_BYTES,
        )


def statistics(path: Path) -> dict[str, int]:
    """How much there is of what, by name. Raises LocalFault."""
    with reading_database(path) as connection:
        return dict(connection.execute(_SQL["statistics"]).fetchall())


def quick_check(path: Path, *, limit_s: float, clock: Clock) -> bool:
    """Let SQLite check the file; False when that took longer than it may.

    Raises SpoolDamaged with the first thing that is wrong, and what `view` raises.
    """
    deadline_s = clock.monotonic_s() + limit_s
    with reading_database(path) as connection:
        connection.set_progress_handler(lambda: int(clock.monotonic_s() > deadline_s), _STEPS_BETWEEN_LOOKS)
        try:
            (answer,) = connection.execute(_SQL["quick_check"]).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return False
            raise
    if answer != "ok":
        raise SpoolDamaged(f"{path} is damaged: {answer.splitlines()[0]}")
    return True


def _refuse_other_shape(version: int, path: Path) -> None:
    """Our questions are for our shape of the spool; another one would answer with nonsense."""
    if version > VERSION:
        raise SpoolRefused(f"{path} was written by a newer agent (spool version {version}, this one knows {VERSION})")
    if version < VERSION:
        raise SpoolOutdated(f"{path} was written by an older agent (spool version {version}, now {VERSION})")


def _oldest_unsent(connection: sqlite3.Connection, clock: Clock) -> tuple[str | None, float | None]:
    row = connection.execute(_SQL["oldest_unsent"]).fetchone()
    if row is None:
        return None, None
    return row["captured_at"], _age_s(row["captured_at"], row["line"].encode(), clock)


def _age_s(captured_at: str, line: bytes, clock: Clock) -> float | None:
    """By the clock that can't step, within one boot; else by the wall clock, unless it says nonsense."""
    try:
        record = from_line(line)
        if record.boot == clock.boot:
            return (clock.mono_ms() - record.mono_ms) / 1000
        age_s = (clock.now() - datetime.fromisoformat(captured_at)).total_seconds()
    except (RefusedLine, ValueError, TypeError):
        return None  # damaged: that is doctor's matter
    return age_s if 0 <= age_s < timedelta(days=365).total_seconds() else None


def _rows_since(connection: sqlite3.Connection, since: datetime) -> int:
    (place,) = connection.execute(_SQL["place_since"], {"since": format_instant(since)}).fetchone()
    if place is None:
        return 0
    epoch_number, seq = divmod(place, SEQS_PER_EPOCH)
    (rows,) = connection.execute(_SQL["rows_from"], {"epoch_number": epoch_number, "seq": seq}).fetchone()
    return int(rows)
