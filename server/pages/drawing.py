"""Draws what a device reported, as the points of an SVG without words: those stand around it, in the page.

May be relied on: whatever the values are, every coordinate lies within the drawing. Where nothing was reported nothing
is drawn: a silent device is a hole, and no straight line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 1000
HEIGHT = 100
HOUR_S = 3600.0
HOLE_S = 2 * HOUR_S
"""Reports that lie further apart are not joined: one is kept of each hour."""
SPANS_S = (60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0, 3 * 86_400.0, 7 * 86_400.0, 30 * 86_400.0, 365 * 86_400.0)

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a drawing, and what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    at_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """`line` and `area` are paths, `bars` for what is counted by the hour; `top` is the value of the upper edge."""

    line: str
    area: str
    bars: tuple[Bar, ...]
    top: float
    highest: float | None
    newest: float | None
    is_empty: bool


def draw_line(
    points: Sequence[Point],
    begin_s: float,
    end_s: float,
    least_top: float,
    rounded: Callable[[float], float] | None = None,
) -> Drawing:
    """Draw values over time, from 0 up to a round number of at least `least_top`."""
    values = [value for _, value in points if value is not None]
    top = (rounded or round_up)(max([least_top, *values]))
    runs = [[(_x(at_s, begin_s, end_s), _y(value, top)) for at_s, value in run] for run in _runs(points)]
    return Drawing(
        line=" ".join(_path(run) for run in runs),
        area=" ".join(f"{_path(run)} L{run[-1][0]:.1f},{HEIGHT} L{run[0][0]:.1f},{HEIGHT} Z" for run in runs),
        bars=(),
        top=top,
        highest=max(values, default=None),
        newest=values[-1] if values else None,
        is_empty=not values,
    )


def draw_bars(by_hour: Mapping[float, float], begin_s: float, end_s: float, least_top: float) -> Drawing:
    """Draw a bar for each hour that has a value."""
    top = round_up(max([least_top, *by_hour.values()]))
    bars = []
    for hour_s, value in sorted(by_hour.items()):
        left, right = _x(hour_s, begin_s, end_s), _x(hour_s + HOUR_S, begin_s, end_s)
        y = _y(value, top)
        # A sliver of the hour stays free, so that bars can be told apart.
        bars.append(Bar(left, y, max((right - left) * 0.85, 0.5), HEIGHT - y, hour_s, value))
    values = [value for _, value in sorted(by_hour.items())]
    return Drawing(
        line="",
        area="",
        bars=tuple(bars),
        top=top,
        highest=max(values, default=None),
        newest=values[-1] if values else None,
        is_empty=not any(values),
    )


def round_up(value: float) -> float:
    """The next number of 1, 2 or 5 with zeros behind it."""
    power = 1.0
    while True:
        for step in (1.0, 2.0, 5.0):
            if value <= step * power:
                return step * power
        power *= 10.0


def round_up_span(seconds: float) -> float:
    """The next span of time that people speak of."""
    return next((span for span in SPANS_S if seconds <= span), round_up(seconds / SPANS_S[-1]) * SPANS_S[-1])


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """Divide the points where nothing was reported."""
    runs: list[list[tuple[float, float]]] = []
    before_s: float | None = None
    for at_s, value in points:
        if value is None:
            before_s = None
            continue
        if before_s is None or at_s - before_s > HOLE_S:
            runs.append([])
        runs[-1].append((at_s, value))
        before_s = at_s
    return runs


def _path(run: Sequence[tuple[float, float]]) -> str:
    # A single report is a point: a line of no length, which its round ends make visible.
    first, *others = run
    return f"M{first[0]:.1f},{first[1]:.1f}" + "".join(f" L{x:.1f},{y:.1f}" for x, y in others or [first])


def _x(at_s: float, begin_s: float, end_s: float) -> float:
    return min(max((at_s - begin_s) / (end_s - begin_s), 0.0), 1.0) * WIDTH


def _y(value: float, top: float) -> float:
    return HEIGHT - min(max(value / top, 0.0), 1.0) * HEIGHT
