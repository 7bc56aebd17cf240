"""Requests are counted as they were answered, and no sender can make the counts grow."""

from dataclasses import dataclass

import pytest
from starlette.responses import Response
from starlette.routing import Route

from server.traffic import BUCKETS_S, METHODS, REFUSED_AS, Traffic, quantile


@dataclass
class Watch:
    """A clock that is moved by hand."""

    at_s: float = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.at_s


async def upload() -> Response:
    """Answers uploads."""
    return Response()


async def page() -> Response:
    """Answers something else."""
    return Response()


@pytest.fixture
def watch() -> Watch:
    """A clock."""
    return Watch()


@pytest.fixture
def traffic(watch: Watch) -> Traffic:
    """Counts of two routes."""
    counted = Traffic({"/upload"}, watch)
    counted.name([Route("/upload", upload), Route("/page", page)])
    return counted


def note(traffic: Traffic, status: int, seconds: float = 0.01, times: int = 1, **scope: object) -> None:
    """Count an upload."""
    for _ in range(times):
        traffic.note({"method": "POST", "path": "/upload", "endpoint": upload, **scope}, status, seconds)


def test_success_is_what_arrived_of_all_uploads(traffic: Traffic):
    """What is there already has arrived; whose sender left has not."""
    note(traffic, 200, times=6)
    note(traffic, 400, times=2, **{REFUSED_AS: "409"})
    note(traffic, 503)
    note(traffic, 0)
    traffic.note({"method": "GET", "path": "/page", "endpoint": page}, 500, 9.0)

    assert (traffic.recent().uploads, traffic.recent().success) == (10, 0.8)


def test_lately_is_the_last_five_minutes(traffic: Traffic, watch: Watch):
    """What was long ago says nothing of now."""
    note(traffic, 500, seconds=4.0, times=50)
    for _ in range(40):
        watch.at_s += 10
        traffic.recent()
    note(traffic, 200, times=10)

    recent = traffic.recent()

    assert (recent.uploads, recent.success, recent.span_s) == (10, 1.0, 300)
    assert recent.p99_s is not None
    assert recent.p99_s <= 0.01


def test_nothing_asked_is_neither_success_nor_failure(traffic: Traffic):
    """Nothing asked is neither success nor failure."""
    assert (traffic.recent().success, traffic.recent().p99_s) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "wanted"), [([0.02] * 100, 0.025), ([0.02] * 98 + [2.0] * 2, 2.5), ([60.0] * 10, 10.0)]
)
def test_the_99th_percentile_is_as_near_as_the_buckets(seconds: list[float], wanted: float):
    """It lies in the bucket of the request that counts, and never above it."""
    within = [float(sum(one <= bound for one in seconds)) for bound in BUCKETS_S]
    found = quantile(0.99, len(seconds), within)

    assert found is not None
    assert wanted / 2.5 <= found <= wanted


def test_no_sender_can_make_the_counts_grow(traffic: Traffic):
    """Paths that are not ours share one label, and so do methods."""
    for number in range(500):
        traffic.note({"method": f"M{number}", "path": f"/{number}"}, 404, 0.001)

    (one,) = traffic.by_route()

    assert (one.route, one.requests, one.well) == ("other", 500, 0)
    assert "POST" in METHODS
