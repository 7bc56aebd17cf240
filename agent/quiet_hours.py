"""Hours of the day in which nothing is uploaded, by the shop's own clock on the wall.

May be relied on: the hours begin at their first minute and end before their last; they may cross midnight.
"""

import re
from datetime import datetime, time, timedelta

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


def quiet_hours_problem(text: str) -> str | None:
    """Why this is not "HH:MM-HH:MM"; None when it is, or is empty."""
    if not text:
        return None
    if not _HOURS.fullmatch(text):
        return 'must be "HH:MM-HH:MM", such as "22:00-06:00", or "" for none'
    begin, end = _times(text)
    return "must not begin when they end: nothing would ever be sent" if begin == end else None


def quiet_until(text: str, local: datetime) -> datetime | None:
    """When the quiet hours end in which this local time lies; None when it lies in none."""
    if not text:
        return None
    begin, end = _times(text)
    now = local.time().replace(tzinfo=None)
    is_quiet = begin <= now < end if begin < end else now >= begin or now < end
    if not is_quiet:
        return None
    day = local.date() if now < end else local.date() + timedelta(days=1)
    return datetime.combine(day, end, tzinfo=local.tzinfo)


def _times(text: str) -> tuple[time, time]:
    begin, _, end = text.partition("-")
    return time.fromisoformat(begin), time.fromisoformat(end)
