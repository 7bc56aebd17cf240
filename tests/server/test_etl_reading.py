"""The readers of what tills say: they never raise, and agree with an independent reading of the same text."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

MANILA = ZoneInfo("Asia/Manila")
READERS = """
select scout.said_text(said), scout.said_number(said), scout.said_amount(said), scout.said_count(said),
    scout.said_boolean(said), scout.said_instant(said, 'Asia/Manila')
from (select %s::jsonb as said) as given
"""

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.text("0123456789.,+-₱PHPphp eE\t\v\u00a0\u2003", max_size=14),
    st.text("0123456789-:TtZz.+ ", min_size=8, max_size=28),
    st.sampled_from(["now", "today", "yesterday", "infinity", "NaN", "epoch", "allballs", "Inf", "0x1f", "1_000"]),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)), max_leaves=4)
of_one_database = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(connection: psycopg.Connection, reader: str, said: Any) -> Any:
    """What one reader makes of a value."""
    zone = ", 'Asia/Manila'" if reader == "said_instant" else ""
    query = f"select scout.{reader}(%s::jsonb{zone})"
    row = connection.execute(query.encode(), (json.dumps(said),)).fetchone()
    assert row is not None
    return row[0]


@given(said=values)
@of_one_database
def test_no_reader_raises_whatever_is_said(connection: psycopg.Connection, said: Any) -> None:
    """One value that can't be read must not cost its load."""
    row = connection.execute(READERS, (json.dumps(said),))

    assert len(row.fetchall()) == 1


def python_amount(said: str) -> Decimal | None:
    """The amount that a text means, by Python: the peso's sign off, commas only between thousands."""
    text = said.strip(" \t\r\n")
    found = re.fullmatch(r"(?P<sign>[+-]?)(?:(?:₱|(?i:php)) *)?(?P<rest>[+-]?.*)", text, re.DOTALL)
    assert found is not None
    sign, rest = found["sign"], found["rest"]
    if sign and rest[:1] in ("+", "-"):
        return None
    digits = rest.lstrip("+-") if len(rest) - len(rest.lstrip("+-")) <= 1 else "x"
    whole, _, fraction = digits.partition(".")
    groups = whole.split(",")
    is_grouped = len(groups) == 1 or (1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]))
    if not is_grouped or not re.fullmatch("[0-9]*", "".join(groups) + fraction) or not (groups[0] or fraction):
        return None
    number = Decimal("".join(groups) + "." + (fraction or "0"))
    return -number if "-" in sign + rest[:1] else number


@given(said=st.one_of(texts, st.from_regex(r"\A[+-]?(₱|PHP )?-?[0-9]{1,4}(,[0-9]{2,3}){0,3}(\.[0-9]{0,3})?\Z")))
@example(said="₱1,250.00")
@example(said="PHP 1,250.00")
@example(said="1,25")
@example(said="1250,000")
@example(said=",250")
@example(said="-₱5")
@example(said="₱-5")
@example(said="-₱-5")
@example(said="1,250,")
@of_one_database
def test_an_amount_is_what_python_reads(connection: psycopg.Connection, said: str) -> None:
    """Sign, currency and thousands, or nothing."""
    assert read(connection, "said_amount", said) == python_amount(said)


def python_instant(said: str) -> datetime | None:
    """The moment that an ISO text means, by Python; none where it isn't the form that tills may use."""
    text = said.strip(" \t\r\n")
    form = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?([Zz]|[+-]\d\d(:?[0-5]\d)?))?"
    if not re.fullmatch(form, text, re.ASCII):
        return None
    try:
        at = datetime.fromisoformat(re.sub(r" ([Zz]|[+-])", r"\1", text.upper()))
    except ValueError:
        return None
    if at.tzinfo is None:
        return at.replace(tzinfo=MANILA)
    return at if abs(at.utcoffset() or timedelta()) < timedelta(hours=15) else None


instants = st.builds(
    lambda at, form, zone: at.strftime(form) + zone,
    st.datetimes(datetime(1980, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001 - a zone comes behind it
    st.sampled_from(
        ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:61", "%Y-%m-31T%H:%M"]
    ),
    st.sampled_from(["", "Z", " z", "+08:00", "-0330", "+08", "+16:00", "+08:60", "PST"]),
)


@given(said=instants)
@example(said="2026-02-29T10:00:00Z")
@example(said="2026-01-20T24:00:00Z")
@example(said="2026-01-20T10:30:60Z")
@example(said="0000-01-01T00:00:00Z")
@of_one_database
def test_an_iso_time_is_what_python_reads(connection: psycopg.Connection, said: str) -> None:
    """With an offset or without one; what no calendar has is none."""
    assert read(connection, "said_instant", said) == python_instant(said)


@given(seconds=st.decimals(10**7, 5 * 10**9, places=3), unit=st.sampled_from([1, 1000]), as_text=st.booleans())
@example(seconds=Decimal(946684800), unit=1, as_text=False)
@example(seconds=Decimal("946684799.999"), unit=1000, as_text=True)
@example(seconds=Decimal(4102444800), unit=1000, as_text=True)
@of_one_database
def test_an_epoch_time_is_read_in_seconds_and_milliseconds(
    connection: psycopg.Connection, seconds: Decimal, unit: int, as_text: bool
) -> None:
    """From 2000 to 2099, as a number or as digits in a string; before and after, it is no time of a sale."""
    said = f"{seconds * unit:f}"
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(seconds * 1000))

    found = connection.execute(
        "select scout.said_instant(%s::jsonb, 'Asia/Manila')", (json.dumps(said) if as_text else said,)
    ).fetchone()

    assert found == (at if 2000 <= at.year < 2100 else None,)


@pytest.mark.parametrize(
    "said", ["now", "today", "yesterday", "20260120", "202601201030", "20260120103000", 0, -1, True]
)
def test_what_is_no_time_is_none(connection: psycopg.Connection, said: Any) -> None:
    """Above all no word that would make silver depend on the clock."""
    assert read(connection, "said_instant", said) is None
