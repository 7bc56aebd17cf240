"""When to try again, and on which path."""

import pytest
from fakes import FakeClock

from agent.pace import Pace, Route


def a_route(clock: FakeClock, *paths: str) -> Route:
    """Return a route as the default config makes it."""
    return Route(paths, clock, wait_max_s=300.0, failover_after=3, failback_after_s=600.0)


def test_waits_grow_at_random_up_to_the_ceiling_and_never_end(clock: FakeClock) -> None:
    """Full jitter: a fleet that lost its server must not come back in step."""
    pace = Pace(clock, 300.0)
    waits = [pace.failed() for _ in range(2000)]

    for number, wait_s in enumerate(waits, start=1):
        assert 0.0 <= wait_s <= min(2.0 ** min(number, 60), 300.0)
    assert len(set(waits[20:])) > 1900
    assert 100.0 < sum(waits[20:]) / len(waits[20:]) < 200.0


def test_a_server_that_asks_for_patience_gets_it(clock: FakeClock) -> None:
    """Even beyond the ceiling."""
    pace = Pace(clock, 10.0)
    assert pace.failed(at_least_s=1000.0) == 1000.0
    assert pace.ready_in_s() == 1000.0
    clock.pass_s(1001.0)
    assert pace.ready_in_s() == 0.0


def test_success_forgets_all_failures_and_says_whether_there_were_any(clock: FakeClock) -> None:
    """So that recovery can be announced."""
    pace = Pace(clock, 300.0)
    assert not pace.succeeded()
    for _ in range(10):
        pace.failed(100.0)
    assert pace.succeeded()
    assert (pace.ready_in_s(), pace.failures) == (0.0, 0)


def test_the_other_path_takes_over_after_failures_in_a_row_and_the_first_is_tried_again(clock: FakeClock) -> None:
    """Once in a while, and without slowing the path that works."""
    route = a_route(clock, "bucket", "endpoint")
    assert [route.failed("bucket") for _ in range(2)] == ["bucket", "bucket"]
    route.succeeded("bucket")
    assert [route.failed("bucket") for _ in range(3)] == ["bucket", "bucket", "endpoint"]
    assert route.ready_in_s() == 0.0
    route.succeeded("endpoint")
    clock.pass_s(599.0)
    assert route.choose() == "endpoint"
    clock.pass_s(1.0)
    assert route.choose() == "bucket"
    assert route.failed("bucket", 100.0) == "endpoint"
    assert (route.choose(), route.ready_in_s()) == ("endpoint", 0.0)
    clock.pass_s(600.0)
    assert route.choose() == "bucket"
    assert route.succeeded("bucket")
    assert route.choose() == "bucket"


def test_with_both_paths_down_they_take_turns_and_waits_still_grow(clock: FakeClock) -> None:
    """No path is hammered because the other failed too."""
    route = a_route(clock, "bucket", "endpoint")
    tried = []
    for _ in range(60):
        path = route.choose()
        tried.append(path)
        route.failed(path)
        clock.pass_s(route.ready_in_s())

    assert set(tried) == {"bucket", "endpoint"}
    assert {path: route._paths[path].failures for path in set(tried)} == {
        "bucket": tried.count("bucket"),
        "endpoint": tried.count("endpoint"),
    }


@pytest.mark.parametrize("path", ["bucket", "endpoint"])
def test_a_single_path_stays_however_often_it_fails(clock: FakeClock, path: str) -> None:
    """There is nowhere else to go."""
    route = a_route(clock, path)
    assert {route.failed(path) for _ in range(50)} == {path}
    assert route.choose() == path


def test_a_batch_that_was_refused_on_one_path_takes_another_that_works(clock: FakeClock) -> None:
    """Only while that one works: a path that is down must not keep it waiting."""
    route = a_route(clock, "bucket", "endpoint")
    assert route.choose(avoiding="bucket") == "endpoint"
    assert route.choose(avoiding="endpoint") == "bucket"
    route.failed("endpoint")
    assert route.choose(avoiding="bucket") == "bucket"
    assert a_route(clock, "bucket").choose(avoiding="bucket") == "bucket"


def test_the_first_path_is_not_asked_again_before_the_time_that_it_asked_for(clock: FakeClock) -> None:
    """The other one goes on meanwhile."""
    route = a_route(clock, "bucket", "endpoint")
    for _ in range(3):
        route.failed("bucket", at_least_s=3600.0)
    clock.pass_s(601.0)
    assert (route.choose(), route.ready_in_s()) == ("endpoint", 0.0)
    clock.pass_s(3000.0)
    assert route.choose() == "bucket"


def test_a_hurry_ends_a_wait_of_our_own_but_not_one_that_was_asked_for(clock: FakeClock) -> None:
    """A technician may be impatient; a server that is overloaded, or still storing, may not be pressed."""
    route = a_route(clock, "bucket", "endpoint")
    for _ in range(20):
        route.failed("bucket")
    route.hurry("bucket")
    assert (route.active, route.ready_in_s()) == ("bucket", 0.0)
    route.failed("bucket", at_least_s=60.0)
    route.hurry("bucket")
    assert route.ready_in_s() == 60.0
