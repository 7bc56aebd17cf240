"""Draws a status for a person: one screen, never wider than asked for, the verdict last.

May be relied on: no line is wider than `width`, whatever names, paths and errors hold; control characters are
never passed on to the terminal. Colours are added only when asked for, and carry nothing that the words don't.
"""

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.verdict import NEARLY_FULL_HOURS, TOKEN_DUE_DAYS, Status, shown_time

WIDTH = 80
_LABEL = 14
_RESULT = 13
_HOURS_SHOWN_MAX = 24 * 99
_STYLES = {"red": "\x1b[1;31m", "yellow": "\x1b[33m", "green": "\x1b[32m", "": ""}
_VERDICTS = (
    ("green", "ALL IS WELL: sales are taken and delivered."),
    ("yellow", "ATTENTION: sales are safe here; see above what to do."),
    ("red", "BROKEN: do now what stands above, beginning with 1."),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One fact of the screen."""

    label: str
    text: str
    style: str = ""


def draw(status: Status, *, width: int = WIDTH, colours: bool = False) -> list[str]:
    """Return the lines of the screen."""
    lines = [line for row in _rows(status) for line in _drawn(row, width, colours=colours)]
    for number, problem in enumerate((*status.broken, *status.attention), start=1):
        style = "red" if problem in status.broken else "yellow"
        lines += ["", *_paragraph(f"{number}. ", _sentence(problem.message), style, width, colours=colours)]
        lines += _paragraph("   ", f"DO: {problem.next_step}", "", width, colours=colours)
    style, verdict = _VERDICTS[status.exit_status]
    return [*lines, "", *_paragraph("", verdict, style, width, colours=colours)]


def draw_finding(name: str, result: str, message: str, next_step: str, *, width: int, colours: bool) -> list[str]:
    """One line of the doctor's, and what to do next below it."""
    style = {"ok": "green", "attention": "yellow", "broken": "red"}.get(result, "")
    word = _coloured(f"{result:<{_RESULT}}", style, colours=colours)
    first, *rest = _paragraph(" " * (_LABEL + _RESULT), message, "", width, colours=False)
    lines = [f"{name:<{_LABEL}}{word}{first.strip()}".rstrip(), *rest]
    if next_step:
        lines += _paragraph(" " * (_LABEL + _RESULT), f"DO: {next_step}", "", width, colours=False)
    return lines


def draw_end(results: Mapping[str, str], exit_status: int, *, width: int, colours: bool) -> list[str]:
    """The doctor's last words: where to begin."""
    worst = {2: "broken", 1: "attention"}.get(exit_status)
    names = ", ".join(name for name, result in results.items() if result == worst)
    text = {2: f"BROKEN: {names}. Mend the first of them first.", 1: f"ATTENTION: {names}."}
    style, _ = _VERDICTS[exit_status]
    return _paragraph("", text.get(exit_status, "ALL IS WELL."), style, width, colours=colours)


def draw_age(status: Status, now: datetime, *, width: int = WIDTH) -> list[str]:
    """Say that somebody else saw this, how long ago, and how to see more."""
    age_s = (now - datetime.fromisoformat(status.seen_at)).total_seconds()
    text = f"The agent itself saw this {_ago(age_s)}. To look now: sudo scout-agent status"
    return textwrap.wrap(text, width)


def _rows(seen: Status) -> Iterator[Row]:
    daemon = seen.daemon
    yield Row("device", f"{seen.device or 'unknown'}, epoch {seen.epoch or '-'}")
    yield _agent(seen)
    yield Row("not sent", _not_sent(seen))
    yield Row("taken", "-" if seen.rows_last_hour is None else f"{_sales(seen.rows_last_hour)} in the last hour")
    by = f", by {seen.last_accepted_by}" if seen.last_accepted_by else ""
    now_by = f"; now by {daemon.path}" if daemon and daemon.path not in (None, seen.last_accepted_by) else ""
    yield Row("last sent", _when(seen, seen.last_accepted_at) + by + now_by)
    waiting = f"; {_sales(seen.rows_accepted)} sent without one" if seen.rows_accepted else ""
    yield Row("last receipt", _when(seen, seen.last_settled_at) + waiting)
    yield Row("set aside", _sales(seen.rows_set_aside) if seen.rows_set_aside else "none")
    fault = seen.last_fault
    yield Row("last error", f"{_when(seen, fault.at)}: {fault.message}" if fault else "none")
    if daemon and daemon.paused_until:
        yield Row("PAUSED", f"until {shown_time(daemon.paused_until)}", "red")
    if daemon and daemon.quiet_until:
        yield Row("quiet hours", f"nothing is sent until {shown_time(daemon.quiet_until)}")
    yield _token(seen)
    yield _disk(seen)
    yield Row("clock", _clock(seen))
    shape = "" if seen.spool_version is None else f", spool {seen.spool_version}"
    yield Row("version", f"scout-agent {seen.version}{shape}")


def _agent(seen: Status) -> Row:
    if not seen.running:
        return Row("agent", "NOT RUNNING", "red")
    return Row("agent", f"running, started {_when(seen, seen.daemon.started_at)}" if seen.daemon else "running")


def _not_sent(seen: Status) -> str:
    if seen.spool_version is None:
        return "unknown"
    if not seen.oldest_unsent_at:
        return _sales(seen.rows_not_sent)
    age_s = seen.oldest_unsent_age_s
    oldest = "before the clock was right" if age_s is None else _ago(age_s)
    return f"{_sales(seen.rows_not_sent)}, the oldest taken {oldest}"


def _token(seen: Status) -> Row:
    how = "enrolled: it renews itself" if seen.enrolled else "not enrolled: it is renewed by hand"
    if seen.token_days_left is None:
        return Row("token", f"not usable; {how}", "yellow")
    style = "yellow" if seen.token_days_left < TOKEN_DUE_DAYS else ""
    return Row("token", f"{max(0.0, seen.token_days_left):.1f} days left; {how}", style)


def _disk(seen: Status) -> Row:
    if seen.spool_bytes is None:
        used = "spool unknown"
    else:
        cap = f" of {_size(seen.spool_bytes_max)}" if seen.spool_bytes_max is not None else ""
        used = f"spool {_size(seen.spool_bytes)}{cap}"
    free = f", {_size(seen.disk_free_bytes)} free" if seen.disk_free_bytes is not None else ""
    hours = seen.hours_to_full
    if hours is None:
        return Row("disk", used + free)
    left = f"full in {hours:,.0f} hours" if hours < 2 * NEARLY_FULL_HOURS else f"full in {hours / 24:,.0f} days"
    if hours > _HOURS_SHOWN_MAX:
        left = "room for months"
    return Row("disk", f"{used}{free}; {left} at this rate", "yellow" if hours < NEARLY_FULL_HOURS else "")


def _clock(seen: Status) -> str:
    text = "synchronised" if seen.clock_synced else "not synchronised"
    offset_s = seen.daemon.clock_offset_s if seen.daemon else None
    if offset_s is None:
        return text
    return f"{text}; the server's is {abs(offset_s):,.1f} s {'ahead' if offset_s >= 0 else 'behind'}"


def _when(seen: Status, at: str | None) -> str:
    """How long before this status, and when."""
    if at is None:
        return "never"
    try:
        age_s = (datetime.fromisoformat(seen.seen_at) - datetime.fromisoformat(at)).total_seconds()
    except (ValueError, TypeError):
        return f"unknown ({at})"  # a damaged spool may say anything
    return f"{_ago(age_s)} ({shown_time(at)})"


def _ago(age_s: float) -> str:
    for unit, seconds in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s // seconds:.0f} {unit} ago"
    return f"{max(0.0, age_s):.0f} seconds ago"


def _sales(rows: int) -> str:
    return f"{rows:,} sale" if rows == 1 else f"{rows:,} sales"


def _size(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _sentence(text: str) -> str:
    """Begin as a sentence does, unless it begins with a name that must stay as it is."""
    begins_with_a_word = text.partition(" ")[0].isalpha()
    return text[:1].upper() + text[1:] if begins_with_a_word else text


def _drawn(row: Row, width: int, *, colours: bool) -> list[str]:
    return _paragraph(f"{row.label:<{_LABEL}}", row.text, row.style, width, colours=colours)


def _paragraph(head: str, text: str, style: str, width: int, *, colours: bool) -> list[str]:
    """Text wrapped beside its head."""
    wrapped = textwrap.wrap(_harmless(text), width - len(head), break_on_hyphens=False) or [""]
    heads = [head, *(" " * len(head) for _ in wrapped[1:])]
    return [
        f"{head}{_coloured(line, style, colours=colours)}".rstrip() for head, line in zip(heads, wrapped, strict=True)
    ]


def _coloured(text: str, style: str, *, colours: bool) -> str:
    return f"{_STYLES[style]}{text}\x1b[0m" if colours and style else text


def _harmless(text: str) -> str:
    """Only what is one column wide and moves no cursor."""
    return "".join(
        character if character.isprintable() and unicodedata.east_asian_width(character) not in "WF" else "?"
        for character in text
    )
