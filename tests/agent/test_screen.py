"""The screen: whatever was seen, it fits and says what to do."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from status_kit import DAEMON, FAULT, WELL, told

from agent.board import ReportedFault
from agent.screen import WIDTH, draw, draw_end, draw_finding
from agent.verdict import Problem, Status

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
AWFUL = "x" * 63 + " \x1b[2J\r\n\t収入" + "/long/path" * 30

texts = st.one_of(st.just(AWFUL), st.text(max_size=200))
numbers = st.integers(min_value=0, max_value=10**15)
instants = st.sampled_from(["2027-03-01T02:29:00.000Z", "1970-01-01T00:00:00.000Z", "2099-01-01T00:00:00.000Z"])
problems = st.builds(Problem, st.just("spool_damaged"), texts, texts)
faults = st.builds(ReportedFault, st.just("wait"), texts, texts, instants)
daemons = st.builds(
    lambda **facts: replace(DAEMON, **facts),
    last_fault=st.none() | faults,
    paused_until=st.none() | instants,
    quiet_until=st.none() | instants,
    config_refused=st.none() | texts,
    intake_refused=st.none() | texts,
    source_faults=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    clock_offset_s=st.none() | st.floats(-1e12, 1e12),
    path=st.none() | texts,
)


@st.composite
def statuses(draw_one: st.DrawFn) -> Status:
    """Any status, likely or not."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "str": texts,
        "str | None": st.none() | texts,
        "tuple[str, ...]": st.lists(texts, max_size=2).map(tuple),
        "bool": st.booleans(),
        "int": numbers,
        "int | None": st.none() | numbers,
        "float | None": st.none() | st.floats(0, 1e15),
        "Problem | None": st.none() | problems,
        "DaemonFacts | None": st.none() | daemons,
    }
    values = {}
    for field in fields(Status):
        name = getattr(field.type, "__name__", None) if isinstance(field.type, type) else str(field.type)
        kind = (name or "").replace("agent.verdict.", "").replace("agent.board.", "")
        if field.name.endswith("_at"):
            values[field.name] = draw_one(instants if field.name == "seen_at" else st.none() | instants | texts)
        else:
            values[field.name] = draw_one(kinds[kind])
    return Status(**values)


@given(seen=statuses(), width=st.integers(40, 80), colours=st.booleans())
def test_no_line_is_wider_and_nothing_moves_the_cursor(seen: Status, width: int, *, colours: bool) -> None:
    """Long ids, paths, errors, wide and control characters included; the verdict is the last line or lines."""
    lines = draw(seen, width=width, colours=colours)
    plain = [ESCAPES.sub("", line) for line in lines]

    assert max(len(line) for line in plain) <= width
    assert all(line.isprintable() for line in plain)
    assert colours or plain == lines
    words = ("ALL IS WELL", "ATTENTION", "BROKEN")[seen.exit_status]
    assert words in "\n".join(plain[-2:])


@given(seen=statuses())
def test_every_problem_and_its_next_step_is_on_the_screen(seen: Status) -> None:
    """Numbered, the broken first."""
    lines = draw(seen)
    problems = [*seen.broken, *seen.attention]

    numbered = [line for line in lines if re.match(r"\d+\.( |$)", line)]
    assert [int(line.partition(".")[0]) for line in numbered] == list(range(1, len(problems) + 1))
    assert sum(line.startswith("   DO:") for line in lines) == len(problems)


def test_a_device_that_is_well_fits_on_half_a_screen() -> None:
    """24 lines are what a phone shows; the rest is for problems."""
    assert len(draw(WELL)) <= 16


def test_what_is_not_known_is_not_shown_as_zero() -> None:
    """An unreadable spool holds an unknown number of sales."""
    damaged = Problem("spool_damaged", "it is damaged", "tell")
    text = "\n".join(
        draw(replace(WELL, spool_problem=damaged, spool_version=None, rows_last_hour=None, spool_bytes=None))
    )

    assert "not sent      unknown" in text
    assert "spool unknown" in text
    assert "taken         -" in text


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (WELL, "running, started 2 hours ago (2027-03-01 00:30 UTC)"),
        (WELL, "120 sales in the last hour"),
        (WELL, "60 seconds ago (2027-03-01 02:29 UTC), by bucket"),
        (WELL, "spool 12.3 MB of 2.0 GB, 20.0 GB free; room for months"),
        (WELL, "23.9 days left"),
        (replace(WELL, hours_to_full=30.0), "full in 30 hours at this rate"),
        (replace(WELL, hours_to_full=240.0), "full in 10 days at this rate"),
        (replace(WELL, spool_bytes_max=None), "spool 12.3 MB, 20.0 GB free"),
        (
            replace(WELL, rows_not_sent=1, oldest_unsent_at=WELL.seen_at, oldest_unsent_age_s=125.0),
            "1 sale, the oldest taken 2 minutes ago",
        ),
        (
            replace(WELL, rows_not_sent=2, oldest_unsent_at=WELL.seen_at, oldest_unsent_age_s=None),
            "2 sales, the oldest taken before the clock was right",
        ),
        (told(clock_offset_s=-2.5), "the server's is 2.5 s behind"),
        (told(path="endpoint"), "by bucket; now by endpoint"),
        (told(quiet_until="2027-03-01T20:00:00.000Z"), "nothing is sent until 2027-03-01 20:00 UTC"),
        (told(last_fault=FAULT), "30 minutes ago (2027-03-01 02:00 UTC): sales.example.com: can't"),
        (replace(WELL, running=False, daemon=None), "NOT RUNNING"),
    ],
)
def test_each_fact_is_in_plain_words(seen: Status, says: str) -> None:
    """As a technician reads it."""
    text = re.sub(r"\n {14}", " ", "\n".join(draw(seen)))

    assert says in text


def test_a_pause_is_red_on_a_terminal() -> None:
    """Nobody should wonder why nothing is sent; without colours the words say it."""
    paused = told(paused_until="2027-03-01T04:30:00.000Z")
    (red,) = [line for line in draw(paused, colours=True) if line.startswith("PAUSED")]
    (plain,) = [line for line in draw(paused) if line.startswith("PAUSED")]

    assert "\x1b[1;31muntil 2027-03-01 04:30 UTC\x1b[0m" in red
    assert plain == "PAUSED        until 2027-03-01 04:30 UTC"


def test_the_widest_screen_has_80_columns() -> None:
    """What a serial console shows."""
    assert WIDTH == 80


@given(name=texts, result=st.sampled_from(["ok", "attention", "broken", "not checked"]), message=texts, step=texts)
def test_the_doctors_lines_fit_too(name: str, result: str, message: str, step: str) -> None:
    """Whatever a check met."""
    lines = draw_finding("server clock", result, message, step, width=80, colours=False)
    lines += draw_end({name: "broken"}, 2, width=80, colours=False)

    assert max(len(line) for line in lines) <= 80
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(f"server clock  {result}")


def test_the_doctor_ends_with_where_to_begin() -> None:
    """The first lines of a long list are out of sight."""
    results = {"config": "ok", "token": "broken", "clock": "attention", "bucket": "not checked"}

    assert draw_end(results, 2, width=80, colours=False) == ["BROKEN: token. Mend the first of them first."]
    assert draw_end(results, 1, width=80, colours=False) == ["ATTENTION: clock."]
    assert draw_end({}, 0, width=80, colours=False) == ["ALL IS WELL."]
