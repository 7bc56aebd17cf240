"""A loop: woken by a nudge, patient with failures, quiet about them."""

import threading

from structlog.testing import capture_logs

from server.loop import Loop

DEADLINE_S = 30


def test_a_nudge_wakes_it_long_before_its_interval():
    """A nudge wakes it long before its interval."""
    steps = threading.Semaphore(0)
    with Loop("test", steps.release, interval_s=3600) as loop:
        assert steps.acquire(timeout=DEADLINE_S)
        loop.nudge()
        assert steps.acquire(timeout=DEADLINE_S)


def test_a_nudge_during_a_step_is_not_lost():
    """A nudge during a step is not lost."""
    began, go_on, again = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        if began.is_set():
            again.set()
        began.set()
        assert go_on.wait(DEADLINE_S)

    with Loop("test", step, interval_s=3600) as loop:
        assert began.wait(DEADLINE_S)
        loop.nudge()
        go_on.set()
        assert again.wait(DEADLINE_S)


def test_a_failing_step_is_told_of_once_tried_again_and_its_recovery_announced():
    """A failing step is told of once tried again and its recovery announced."""
    recovered = threading.Event()
    tries = iter(range(100))

    def step() -> None:
        if next(tries) < 3:
            raise ValueError("the words of a customer")
        recovered.set()

    with capture_logs() as events, Loop("test", step, interval_s=0.01):
        assert recovered.wait(DEADLINE_S)

    assert [event["event"] for event in events] == ["step_failed", "step_recovered"]
    assert events[0]["error"] == "ValueError"
    assert "customer" not in str(events)


def test_it_ends_only_after_the_step_that_runs() -> None:
    """It ends only after the step that runs."""
    began, ended = threading.Event(), threading.Event()

    def step() -> None:
        began.set()
        threading.Event().wait(0.1)
        ended.set()

    with Loop("test", step, interval_s=3600):
        assert began.wait(DEADLINE_S)

    assert ended.is_set()


def test_a_step_that_hangs_is_left_behind():
    """A step that hangs is left behind."""
    go_on = threading.Event()
    with capture_logs() as events:
        with Loop("test", lambda: go_on.wait(DEADLINE_S), interval_s=3600, stop_s=0.05):
            pass
        go_on.set()

    assert [event["event"] for event in events] == ["step_left_behind"]
