"""Measuring a boot's clock by calls home: arithmetic, the spool's memory of it, and what the server is told."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from agent_kit import BUILT_ON, NOW, FakeServer, open_spool, sale, write_config
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from agent import config as configuration
from agent.board import Board, DaemonFacts
from agent.boot_clock import SERVER_STEP_MS, SURE_ENOUGH_MS, is_better, measure, offset_s
from agent.delivery import Delivery
from agent.spool import Spool
from wire.heartbeat import BOOTS_MAX, BootState
from wire.record import format_instant, from_line

TRUE_ZERO = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
"""When the boots of these tests really began."""


def boot(number: int = 1, error_ms: int = 20, zero_at: datetime = TRUE_ZERO) -> BootState:
    """A measurement of the boot of that number."""
    return BootState(f"boot-{number}", format_instant(zero_at), error_ms)


@given(
    sent_ms=st.floats(0, 1e10),
    there_ms=st.floats(0, 60_000),
    back_ms=st.floats(0, 60_000),
)
def test_the_true_beginning_lies_within_the_error(sent_ms: float, there_ms: float, back_ms: float) -> None:
    """However unevenly the round trip divides, and although all clocks are read in whole milliseconds."""
    read_at = TRUE_ZERO + timedelta(milliseconds=sent_ms + there_ms)
    measured = measure("b", format_instant(read_at), int(sent_ms), int(sent_ms + there_ms + back_ms))
    off_ms = abs((datetime.fromisoformat(measured.zero_at) - TRUE_ZERO) / timedelta(milliseconds=1))

    assert off_ms <= measured.error_ms + 1
    assert measured.error_ms <= (there_ms + back_ms) / 2 + 3


def test_a_much_surer_measurement_is_better_and_an_equal_one_is_not() -> None:
    """The card is written only when something was learnt."""
    assert is_better(boot(), None)
    assert is_better(boot(error_ms=1000), boot(error_ms=2000))
    assert not is_better(boot(error_ms=1001), boot(error_ms=2000))
    assert not is_better(boot(error_ms=1), boot(error_ms=SURE_ENOUGH_MS))
    assert not is_better(boot(error_ms=20), boot(error_ms=20))
    assert not is_better(boot(error_ms=21, zero_at=TRUE_ZERO + timedelta(seconds=1)), boot(error_ms=20))


def test_a_server_whose_clock_was_set_is_believed_anew() -> None:
    """A sure measurement of a wrong clock must not stay for ever."""
    step = timedelta(milliseconds=SERVER_STEP_MS + 60)
    for moved in (TRUE_ZERO + step, TRUE_ZERO - step):
        assert is_better(boot(error_ms=30, zero_at=moved), boot(error_ms=20))


def test_the_offset_is_the_servers_time_less_the_wall_clocks() -> None:
    """Positive for a device that lags behind."""
    assert offset_s(boot(), TRUE_ZERO + timedelta(seconds=7), mono_ms=10_000) == pytest.approx(3.0)


def test_a_boot_is_reported_until_it_was_heard_even_when_all_is_settled(spool: Spool) -> None:
    """The reply that brings the first measurement may settle everything."""
    spool.append([sale(1)])
    spool.seal(NOW, BUILT_ON)
    (batch,) = spool.kept(settled=False)
    spool.settle([batch], "2027-03-01T00:00:00.000Z")
    assert spool.boot_states() == ()
    spool.note_boot(boot())

    assert spool.boot_states() == (boot(),)
    spool.note_heard([boot(error_ms=99)])
    assert spool.boot_states() == (boot(),)
    spool.note_heard([boot()])
    assert spool.boot_states() == ()
    moved = boot(zero_at=TRUE_ZERO + timedelta(hours=1))
    spool.note_boot(moved)
    assert spool.boot_states() == (moved,)


def test_a_boot_with_records_that_are_not_settled_is_reported_on(spool: Spool, clock: FakeClock) -> None:
    """Sealed or not, and after the machine started again."""
    spool.append([sale(1)])
    spool.note_boot(boot())
    spool.note_heard([boot()])
    assert spool.boot_states() == (boot(),)
    spool.seal(NOW, BUILT_ON)
    clock.reboot("boot-2")
    assert spool.boot_states() == (boot(),)
    (batch,) = spool.kept(settled=False)
    spool.settle([batch], "2027-03-01T00:00:00.000Z")

    assert spool.boot_states() == ()


def test_a_new_life_of_the_servers_database_hears_of_every_boot_again(spool: Spool) -> None:
    """A backup may be older than the measurement."""
    spool.enter_generation("g-1")
    spool.note_boot(boot())
    spool.note_heard([boot()])
    assert spool.boot_states() == ()
    spool.enter_generation("g-2")

    assert spool.boot_states() == (boot(),)


def test_boots_are_reported_in_bounded_numbers_and_none_is_left_out_for_good(spool: Spool, clock: FakeClock) -> None:
    """The first report names the oldest; once heard, those with nothing to settle make room."""
    for number in range(BOOTS_MAX + 30):
        clock.reboot(f"boot-{number}")
        spool.append([sale(number)])
        spool.note_boot(boot(number, zero_at=TRUE_ZERO + timedelta(hours=number)))
    first = spool.boot_states()
    spool.note_heard(first)
    second = spool.boot_states()

    assert len(first) == len(second) == BOOTS_MAX
    assert {state.boot for state in first} | {state.boot for state in second[:30]} == {
        f"boot-{number}" for number in range(BOOTS_MAX + 30)
    }


def test_boots_of_which_nothing_is_left_are_forgotten(spool: Spool, clock: FakeClock) -> None:
    """The table stays as small as the spool."""
    for number in range(50):
        clock.reboot(f"boot-{number}")
        spool.note_boot(boot(number))
    clock.reboot("boot-with-sales")
    spool.append([sale(1)])
    spool.note_boot(replace(boot(), boot="boot-with-sales"))
    clock.reboot("boot-now")
    spool.note_boot(replace(boot(), boot="boot-now"))

    kept = [row[0] for row in spool._connection.execute("select boot from boots order by boot")]
    assert kept == ["boot-now", "boot-with-sales"]


@pytest.mark.parametrize("wakes_in", [1970, 2026, 2038, 2099, 2106])
def test_a_device_that_wakes_in_another_year_delivers_and_reports_its_boot(
    tmp_path: Path, server: FakeServer, wakes_in: int
) -> None:
    """Intake and delivery wait for no clock; the offset is shown, and the boot's beginning is told the server."""
    clock = FakeClock(datetime(wakes_in, 1, 19, 3, 14, 8, tzinfo=UTC))
    clock.synced = False

    def true_time() -> datetime:
        return TRUE_ZERO + timedelta(milliseconds=clock.mono_ms())

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        if "heartbeat" not in path:
            return None
        clock.pass_s(0.1)  # on its way
        told = server.reply(body, server_time=format_instant(true_time()))
        clock.pass_s(0.1)
        return 200, told

    server.answer = answer
    config = configuration.load(write_config(tmp_path, server.url, batch={"age_max_s": 1.0}))
    spool = open_spool(config.spool_file, clock)
    board = Board(DaemonFacts(pid=1, version="test", started_at="x"))
    with httpx.Client() as client:
        delivery = Delivery(config, spool, client, board, clock=clock, rng=random.Random(1))
        spool.append([sale(7)])
        end_s = clock.monotonic_s() + 200.0
        while clock.monotonic_s() < end_s:
            clock.pass_s(delivery.step() + 0.001)
    settled = spool.state().settled_rows
    spool.close()
    reports = [json.loads(body) for path, _, body in server.requests if "heartbeat" in path]
    (jsonl,) = server.stored.values()
    record = from_line(jsonl.splitlines()[0])

    assert settled == 1
    assert server.numbers() == [7]
    assert record.captured_at.startswith(f"{wakes_in}-01-19")
    assert (record.clock, record.boot) == ("unsynced", "boot-1")
    assert reports[0]["boots"] == []
    (told,) = reports[1]["boots"]
    assert told["boot"] == record.boot
    assert abs(datetime.fromisoformat(told["zero_at"]) - TRUE_ZERO) <= timedelta(milliseconds=told["error_ms"])
    assert 100 <= told["error_ms"] <= 110
    shown = board.facts.clock_offset_s
    assert shown == pytest.approx((true_time() - clock.now()).total_seconds(), abs=0.5)
    assert len(reports) > 2
    assert reports[-1]["boots"] == []


def test_the_wall_clock_may_be_set_at_any_moment(tmp_path: Path, server: FakeServer) -> None:
    """The board shows the new offset, and the boot's beginning stays what it was."""
    clock = FakeClock()
    server.answer = lambda path, body: (
        (200, server.reply(body, server_time=format_instant(TRUE_ZERO + timedelta(milliseconds=clock.mono_ms()))))
        if "heartbeat" in path
        else None
    )
    config = configuration.load(write_config(tmp_path, server.url))
    spool = open_spool(config.spool_file, clock)
    written: list[DaemonFacts] = []
    board = Board(DaemonFacts(pid=1, version="test", started_at="x"), written.append)
    with httpx.Client() as client:
        delivery = Delivery(config, spool, client, board, clock=clock, rng=random.Random(1))
        for _ in range(4):
            delivery.step()
            clock.pass_s(61.0)
        clock.now_is(clock.now() - timedelta(days=400))
        delivery.step()
    spool.close()
    told = [boots for _, _, body in server.requests if (boots := json.loads(body)["boots"])]

    assert told == [[{"boot": "boot-1", "zero_at": format_instant(TRUE_ZERO), "error_ms": 1}]]
    assert [facts.clock_offset_s for facts in written if facts.clock_offset_s is not None] == [
        pytest.approx(-800.0, abs=1.0),
        pytest.approx(400 * 86_400 - 800.0, abs=1.0),
    ]
