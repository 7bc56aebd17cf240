"""Hours without uploads, by the clock on the wall."""

from datetime import datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.quiet_hours import quiet_hours_problem, quiet_until

DAY = "2027-03-01 "


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        ("", "03:00", None),
        ("12:00-13:30", "11:59", None),
        ("12:00-13:30", "12:00", "2027-03-01 13:30"),
        ("12:00-13:30", "13:29", "2027-03-01 13:30"),
        ("12:00-13:30", "13:30", None),
        ("22:00-06:00", "21:59", None),
        ("22:00-06:00", "22:00", "2027-03-02 06:00"),
        ("22:00-06:00", "00:00", "2027-03-01 06:00"),
        ("22:00-06:00", "05:59", "2027-03-01 06:00"),
        ("22:00-06:00", "06:00", None),
        ("18:00-00:00", "23:59", "2027-03-02 00:00"),
        ("00:00-06:00", "00:00", "2027-03-01 06:00"),
    ],
)
def test_quiet_hours_begin_at_their_first_minute_and_end_before_their_last(
    hours: str, now: str, until: str | None
) -> None:
    """Across midnight too."""
    expected = datetime.fromisoformat(until) if until else None

    assert quiet_until(hours, datetime.fromisoformat(DAY + now)) == expected


@pytest.mark.parametrize(
    "text", ["22:00", "22-06", "24:00-06:00", "22:60-06:00", "22:00-06:00 ", "²2:00-06:00", "08:00-08:00", "never"]
)
def test_what_are_no_hours_is_refused_with_what_is_allowed(text: str) -> None:
    """At the start, not at ten in the evening."""
    problem = quiet_hours_problem(text)

    assert problem
    assert "must" in problem


@given(st.times(), st.times(), st.datetimes())
def test_quiet_hours_always_end_within_a_day(begin: time, end: time, now: datetime) -> None:
    """Whatever hours are configured, uploads come back."""
    hours = f"{begin:%H:%M}-{end:%H:%M}"
    if quiet_hours_problem(hours):
        assert f"{begin:%H:%M}" == f"{end:%H:%M}"
        return
    until = quiet_until(hours, now) if now.year < 9999 else None
    if until is not None:
        assert 0 < (until - now).total_seconds() <= 24 * 3600
        assert quiet_until(hours, until) is None
