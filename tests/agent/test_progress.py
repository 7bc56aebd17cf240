"""Whether a loop lives or hangs, told from its signs."""

import threading

from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from agent.progress import Progress

LIMIT_S = 10.0


def test_a_loop_hangs_once_it_is_silent_for_longer_than_its_limit(clock: FakeClock) -> None:
    """And lives again as soon as it gets on; the other one is not to blame."""
    progress = Progress({"intake": LIMIT_S, "delivery": 3 * LIMIT_S}, clock)
    clock.pass_s(LIMIT_S)
    assert progress.hung_since() == {}
    clock.pass_s(1.0)
    assert progress.hung_since() == {"intake": LIMIT_S + 1.0}
    progress.mark("intake")
    assert progress.hung_since() == {}


def test_a_loop_that_is_not_late_lives_however_long_it_announced_to_be_quiet(clock: FakeClock) -> None:
    """Nothing due for an hour is no hang; an hour and a limit is."""
    progress = Progress({"delivery": LIMIT_S}, clock)
    progress.mark("delivery", quiet_for_s=3600.0)
    clock.pass_s(3600.0 + LIMIT_S)
    assert progress.hung_since() == {}
    clock.pass_s(1.0)
    assert list(progress.hung_since()) == ["delivery"]


def test_a_slow_upload_lives_as_long_as_bytes_move_whoever_notes_it(clock: FakeClock) -> None:
    """Marked from another thread, for hours, by less than the limit at a time; then it stops."""
    progress = Progress({"delivery": LIMIT_S}, clock)
    for _ in range(1000):
        clock.pass_s(LIMIT_S - 1.0)
        assert progress.hung_since() == {}
        mover = threading.Thread(target=progress.mark, args=("delivery",))
        mover.start()
        mover.join()
    clock.pass_s(LIMIT_S + 1.0)
    assert list(progress.hung_since()) == ["delivery"]


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.one_of(st.none(), st.floats(0, 1000))),
        min_size=1,
    )
)
def test_hung_means_later_than_announced_and_nothing_else(moves: list[tuple[float, float | None]]) -> None:
    """Whatever came before the last sign counts for nothing."""
    clock = FakeClock()
    progress = Progress({"intake": LIMIT_S}, clock)
    due_s = clock.monotonic_s() + LIMIT_S
    for pass_s, quiet_for_s in moves:
        clock.pass_s(pass_s)
        assert bool(progress.hung_since()) == (clock.monotonic_s() > due_s)
        if quiet_for_s is not None:
            progress.mark("intake", quiet_for_s)
            due_s = clock.monotonic_s() + quiet_for_s + LIMIT_S
