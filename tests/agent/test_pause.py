"""A pause never outlasts what was asked for, whatever happens to clocks and power."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pause import PAUSE_MAX_S, WRITE_EVERY_S, Pause, duration_s

STEP_S = 50.0  # how often the loop looks, at most


def test_a_pause_lasts_as_long_as_asked_and_can_be_ended(tmp_path: Path, clock: FakeClock) -> None:
    """By the clock that can't step."""
    pause = Pause(tmp_path, clock)
    assert pause.keep() == 0.0
    pause.begin(3600.0)
    clock.pass_s(3500.0)
    assert pause.keep() == pytest.approx(100.0)
    clock.pass_s(101.0)
    assert pause.keep() == 0.0
    assert list(tmp_path.iterdir()) == []
    pause.begin(3600.0)
    pause.end()
    assert pause.keep() == 0.0


def test_a_pause_survives_a_restart_and_a_reboot(tmp_path: Path, clock: FakeClock) -> None:
    """A reboot may cost it a minute, never add one."""
    Pause(tmp_path, clock).begin(3600.0)
    clock.pass_s(1000.0)
    assert Pause(tmp_path, clock).keep() == pytest.approx(2600.0)
    clock.reboot("boot-2")
    left_s = Pause(tmp_path, clock).keep()

    assert 2600.0 - 2 * WRITE_EVERY_S < left_s <= 2600.0


@pytest.mark.parametrize("year", [1970, 2020, 2035])
def test_a_reboot_into_a_wrong_year_neither_ends_nor_prolongs_it(tmp_path: Path, clock: FakeClock, year: int) -> None:
    """A clock that is not synchronised has no say."""
    Pause(tmp_path, clock).begin(3600.0)
    clock.reboot("boot-2")
    clock.synced = False
    clock.now_is(datetime(year, 1, 1, tzinfo=UTC))
    pause = Pause(tmp_path, clock)

    assert 3500.0 - WRITE_EVERY_S < pause.keep() < 3600.0
    clock.pass_s(3600.0)
    assert pause.keep() == 0.0


def test_a_pause_ends_at_the_promised_time_of_day_though_the_device_was_off(tmp_path: Path, clock: FakeClock) -> None:
    """Nobody expects a two hour pause to go on after a night without power."""
    Pause(tmp_path, clock).begin(7200.0)
    clock.now_is(clock.now() + timedelta(hours=9))
    clock.reboot("boot-2")

    assert Pause(tmp_path, clock).keep() == 0.0


def test_a_pause_begun_under_a_wrong_clock_is_not_ended_by_its_correction(tmp_path: Path, clock: FakeClock) -> None:
    """It knows no time of day to end at."""
    clock.synced = False
    clock.now_is(datetime(1970, 1, 1, tzinfo=UTC))
    pause = Pause(tmp_path, clock)
    pause.begin(3600.0)
    clock.synced = True
    clock.now_is(datetime(2027, 3, 1, tzinfo=UTC))

    assert pause.keep() == pytest.approx(3600.0)


def test_no_pause_is_longer_than_the_maximum(tmp_path: Path, clock: FakeClock) -> None:
    """Neither asked for nor written into the file."""
    pause = Pause(tmp_path, clock)
    pause.begin(1e12)
    assert pause.left_s() <= PAUSE_MAX_S
    file = tmp_path / "pause.json"
    file.write_text(file.read_text().replace("86400.0", "1e300"))
    assert 0.0 < Pause(tmp_path, clock).left_s() <= PAUSE_MAX_S


def test_a_pause_that_cannot_be_written_down_holds_until_the_process_ends(tmp_path: Path, clock: FakeClock) -> None:
    """A full disk must stop neither the technician nor the loop."""
    pause = Pause(tmp_path / "gone", clock)
    pause.begin(3600.0)
    clock.pass_s(100.0)
    assert pause.keep() == pytest.approx(3500.0)
    pause.end()

    assert pause.keep() == 0.0


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff", b'{"left_s":5}'])
def test_a_file_that_is_no_pause_pauses_nothing(tmp_path: Path, clock: FakeClock, content: bytes) -> None:
    """Rubbish must not stop deliveries."""
    (tmp_path / "pause.json").write_bytes(content)

    assert Pause(tmp_path, clock).keep() == 0.0


@settings(max_examples=25, deadline=None)  # real files
@given(
    asked_s=st.floats(1.0, 7200.0),
    happenings=st.lists(
        st.one_of(
            st.tuples(st.just("run"), st.integers(0, 60)),
            st.tuples(st.just("reboot"), st.booleans()),
            st.tuples(st.just("step"), st.floats(-1e9, 1e9)),
        ),
        max_size=12,
    ),
)
def test_whatever_clocks_and_power_do_it_is_over_in_time(
    asked_s: float, happenings: list[tuple[str, float | bool]]
) -> None:
    """Counted in the time that the agent ran while it held."""
    clock = FakeClock()
    ran_s, boots = 0.0, 1
    with TemporaryDirectory() as folder:
        pause = Pause(Path(folder), clock)
        pause.begin(asked_s)
        for what, value in happenings:
            if what == "run":
                for _ in range(int(value)):
                    if pause.keep() == 0.0:
                        break
                    clock.pass_s(STEP_S)
                    ran_s += STEP_S
            elif what == "reboot":
                boots += 1
                clock.reboot(f"boot-{boots}")
                clock.synced = bool(value)
                pause = Pause(Path(folder), clock)
            else:
                clock.now_is(datetime(2027, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value)))
            assert ran_s <= asked_s + STEP_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("30m", 1800.0), ("2h", 7200.0), ("1h30m", 5400.0), ("1d", 86_400.0), ("0s", 0.0)]
    + [(text, None) for text in ("", "2", "h", "-2h", "2 h", "2H", "1.5h", "²h", "9999999h")],
)
def test_durations_are_read_strictly(text: str, seconds: float | None) -> None:
    """Better a question than a pause of another length."""
    assert duration_s(text) == seconds
