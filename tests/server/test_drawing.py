"""What is drawn lies within its drawing, and where nothing was reported nothing is drawn."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.pages.drawing import HEIGHT, HOUR_S, SPANS_S, WIDTH, draw_bars, draw_line, round_up, round_up_span

BEGIN_S, END_S = 1_000_000.0, 1_000_000.0 + 168 * HOUR_S
VALUES = st.one_of(st.none(), st.floats(0, 1e12))


@given(st.lists(st.tuples(st.floats(0, 1e10), VALUES), max_size=50))
def test_no_point_lies_outside(points: list[tuple[float, float | None]]):
    """No point lies outside, whatever a device reported."""
    drawing = draw_line(sorted(points, key=lambda point: point[0]), BEGIN_S, END_S, 10.0)

    for x, y in re.findall(r"[ML]([^, ]+),([^, ]+)", f"{drawing.line} {drawing.area}"):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


@given(st.dictionaries(st.floats(0, 1e10), st.floats(0, 1e12), max_size=50))
def test_no_bar_lies_outside(by_hour: dict[float, float]):
    """No bar lies outside."""
    for bar in draw_bars(by_hour, BEGIN_S, END_S, 10.0).bars:
        assert 0 <= bar.x <= WIDTH
        assert 0 <= bar.y <= HEIGHT
        assert bar.y + bar.height == pytest.approx(HEIGHT)


def test_a_silent_night_is_a_hole_and_no_line():
    """A silent night is a hole and no straight line across it."""
    hours = [0, 1, 2, 9, 10]
    drawing = draw_line([(BEGIN_S + hour * HOUR_S, 5.0) for hour in hours], BEGIN_S, END_S, 10.0)

    assert drawing.line.count("M") == 2


def test_one_report_alone_is_a_point_that_can_be_seen():
    """A line needs two ends, which its round caps make a point."""
    assert draw_line([(BEGIN_S, 5.0)], BEGIN_S, END_S, 10.0).line == "M0.0,50.0 L0.0,50.0"


def test_nothing_reported_is_an_empty_drawing():
    """Nothing reported is an empty drawing."""
    drawing = draw_line([(BEGIN_S, None)], BEGIN_S, END_S, 10.0)

    assert drawing.is_empty
    assert (drawing.line, drawing.highest, drawing.newest) == ("", None, None)
    assert draw_bars({}, BEGIN_S, END_S, 10.0).is_empty


@given(st.floats(0, 1e12))
def test_the_upper_edge_is_round_and_not_too_high(value: float):
    """The upper edge is round, and no more than two and a half times what is drawn."""
    top = round_up(value)

    assert value <= top <= max(2.5 * value, 1.0)
    assert value <= round_up_span(value)
    assert round_up_span(3000.0) in SPANS_S
