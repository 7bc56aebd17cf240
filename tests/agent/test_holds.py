"""What keeps uploads back for a while: a pause, quiet hours; and the order that passes them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from agent_kit import FakeServer
from delivery_bench import Bench

from agent.orders import Orders, PauseOrder, ReplayOrder, SendOrder
from agent.pause import Pause

TOO_LARGE = b'{"statusCode":"413","code":"EntityTooLarge","message":"The object exceeded the maximum allowed size"}'


def give(bench: Bench, order: Any) -> None:
    """Put an order where the loop looks."""
    Orders(bench.config.spool_file.parent).give(order)


def hours_around(bench: Bench, *, begin_h: int, end_h: int) -> str:
    """Quiet hours relative to the bench's present time, as a shop's wall clock shows it."""
    local = bench.clock.now().astimezone()
    return f"{local + timedelta(hours=begin_h):%H:%M}-{local + timedelta(hours=end_h):%H:%M}"


def calls_home(server: FakeServer) -> int:
    """How often home was called."""
    return sum("heartbeat" in path for path, _, _ in server.requests)


def test_a_pause_stops_uploads_and_nothing_else(bench: Bench) -> None:
    """Sales are taken and sealed, home is called; when it is over everything goes."""
    give(bench, PauseOrder(7200.0))
    bench.sell(1, 2)
    bench.run_for(7000.0)
    assert bench.paths() == []
    assert calls_home(bench.server) > 100
    assert bench.spool.state().waiting_rows == 2
    until = datetime.fromisoformat(bench.board.facts.paused_until or "")
    assert abs((until - bench.clock.now()).total_seconds() - 200) < 60

    bench.run_for(300.0)
    assert bench.server.numbers() == [1, 2]
    assert bench.board.facts.paused_until is None


def test_resume_ends_a_pause_at_the_next_look(bench: Bench) -> None:
    """The last order counts."""
    give(bench, PauseOrder(7200.0))
    bench.sell(1)
    bench.run_for(60.0)
    assert bench.server.stored == {}
    give(bench, PauseOrder(0.0))
    bench.run_for(30.0)

    assert bench.server.numbers() == [1]


def test_a_pause_is_kept_by_the_loop_across_a_reboot_with_a_wrong_clock(make: Callable[..., Bench]) -> None:
    """And ends in time although nobody knows what time it is."""
    bench = make()
    give(bench, PauseOrder(3600.0))
    bench.sell(1)
    bench.run_for(600.0)
    bench.clock.reboot("boot-2")
    bench.clock.synced = False
    bench.clock.now_is(datetime.fromisoformat("1970-01-01T00:00:10+00:00"))
    again = make()
    assert again.board.facts.paused_until is not None
    again.run_for(1000.0)
    assert again.server.stored == {}
    again.run_for(2100.0)

    assert again.server.numbers() == [1]


def test_in_quiet_hours_nothing_is_uploaded_and_home_is_called(make: Callable[..., Bench]) -> None:
    """Afterwards everything goes, the oldest first."""
    hours = hours_around(make(), begin_h=-1, end_h=2)
    bench = make(upload={"quiet_hours": hours})
    bench.sell(1, 2)
    bench.run_for(7100.0)
    assert bench.paths() == []
    assert calls_home(bench.server) > 100
    assert bench.board.facts.quiet_until is not None

    bench.run_for(300.0)
    assert bench.server.numbers() == [1, 2]
    assert bench.board.facts.quiet_until is None


def test_quiet_hours_are_ignored_while_nobody_knows_the_time_and_the_reason_is_shown(
    make: Callable[..., Bench],
) -> None:
    """A wrong clock must not keep sales back, day after day."""
    hours = hours_around(make(), begin_h=-1, end_h=2)
    bench = make(upload={"quiet_hours": hours})
    bench.clock.synced = False
    bench.sell(1)
    bench.run_for(30.0)

    assert bench.server.numbers() == [1]
    assert bench.board.facts.quiet_hours_ignored == "the clock is not synchronised"
    bench.clock.synced = True
    bench.run_for(90.0)
    assert bench.board.facts.quiet_hours_ignored is None


def test_an_order_to_send_passes_quiet_hours_once_and_seals_what_is_there(make: Callable[..., Bench]) -> None:
    """What comes later waits for the morning."""
    hours = hours_around(make(), begin_h=-1, end_h=2)
    bench = make(upload={"quiet_hours": hours}, batch={"rows_max": 2000, "age_max_s": 3600.0})
    bench.sell(1, 2, 3)
    give(bench, SendOrder("1"))
    bench.run_for(5.0)
    assert bench.server.numbers() == [1, 2, 3]
    sent = bench.board.facts.last_send
    assert sent is not None
    assert (sent.id, sent.is_delivered) == ("1", True)

    bench.sell(4)
    bench.run_for(5000.0)
    assert bench.server.numbers() == [1, 2, 3]


def test_an_order_to_send_does_not_wait(bench: Bench) -> None:
    """However often it failed before."""
    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(1, 2)
    bench.run_for(7200.0)
    bench.server.answer = lambda _path, _body: None
    give(bench, SendOrder("1"))
    bench.run_for(0.1)

    assert bench.server.numbers() == [1, 2]
    assert bench.board.facts.last_send is not None
    assert bench.board.facts.last_send.is_delivered


def test_an_order_to_send_tries_each_path_once_and_then_says_why_not(bench: Bench) -> None:
    """A technician waits for an answer, not for a backoff; the order is not left lying."""
    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(1)
    give(bench, SendOrder("7"))
    while bench.board.facts.last_send is None:
        bench.clock.pass_s(bench.delivery.step())
    sent = bench.board.facts.last_send

    assert bench.paths() == ["bucket", "endpoint"]
    assert (sent.id, sent.is_delivered) == ("7", False)
    assert "answered 503: nothing: the agent keeps trying by itself" in sent.message
    assert not Orders(bench.config.spool_file.parent).is_open(SendOrder)
    bench.server.answer = lambda _path, _body: None
    bench.run_for(60.0)
    assert bench.server.numbers() == [1]


def test_an_order_to_send_is_answered_by_the_path_that_works(bench: Bench) -> None:
    """Without waiting for as many failures as an automatic change needs."""
    bench.server.answer = lambda path, _body: (503, b"") if "/storage/" in path else None
    bench.sell(1)
    give(bench, SendOrder("1"))
    bench.run_for(3.0)

    assert bench.server.numbers() == [1]
    assert bench.paths() == ["bucket", "endpoint"]


@pytest.mark.parametrize("answer", [(401, b"{}"), (403, b'{"message":"the device is revoked"}')])
def test_an_order_to_send_with_a_refused_token_says_so(bench: Bench, answer: tuple[int, bytes]) -> None:
    """And asks no more often than once a minute."""
    bench.server.answer = lambda _path, _body: answer
    bench.sell(1)
    bench.run_for(10.0)
    asked = len(bench.server.requests)
    give(bench, SendOrder("1"))
    bench.run_for(5.0)
    sent = bench.board.facts.last_send

    assert sent is not None
    assert (sent.is_delivered, sent.message) == (False, "the token was refused")
    assert len(bench.server.requests) == asked


def test_an_order_to_send_does_not_break_a_pause(bench: Bench) -> None:
    """Somebody asked for it; somebody must end it."""
    give(bench, PauseOrder(3600.0))
    bench.sell(1)
    give(bench, SendOrder("1"))
    bench.run_for(60.0)
    sent = bench.board.facts.last_send

    assert bench.server.stored == {}
    assert sent is not None
    assert sent.message == "uploads are paused: scout-agent resume"


def test_an_order_to_send_with_nothing_to_send_is_carried_out(bench: Bench) -> None:
    """At once."""
    give(bench, SendOrder("1"))
    bench.delivery.step()

    assert bench.board.facts.last_send is not None
    assert bench.board.facts.last_send.is_delivered


def test_an_order_to_replay_tries_again_what_was_set_aside(bench: Bench) -> None:
    """The named ones, or all."""
    bench.server.answer = lambda path, _body: None if "heartbeat" in path else (400, TOO_LARGE)
    bench.sell(1, 2)
    bench.run_for(900.0)
    assert bench.spool.state().set_aside_rows == 2
    bench.server.answer = lambda _path, _body: None
    key = bench.spool._connection.execute("select key from batches order by number limit 1").fetchone()[0]
    give(bench, ReplayOrder((key,)))
    bench.run_for(30.0)
    assert bench.server.numbers() == [1]
    give(bench, ReplayOrder())
    bench.run_for(30.0)
    assert bench.server.numbers() == [1, 2]


def test_a_pause_that_cannot_be_read_stops_nothing(bench: Bench) -> None:
    """Rubbish beside the spool must not keep sales back."""
    (bench.config.spool_file.parent / "pause.json").write_bytes(b"rubbish")
    (bench.config.spool_file.parent / "control" / "pause").write_bytes(b"rubbish")
    bench.sell(1)
    bench.run_for(30.0)

    assert bench.server.numbers() == [1]
    assert Pause(bench.config.spool_file.parent, bench.clock).left_s() == 0.0


def test_a_spool_directory_without_a_control_folder_gets_one(bench: Bench, tmp_path: Path) -> None:
    """After an upgrade as after the first start."""
    assert (tmp_path / "spool" / "control").is_dir()
    assert bench.board.facts.path == "bucket"
