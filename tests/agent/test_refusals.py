"""Whose fault it is when a batch isn't taken: the batch's, the token's, or the way's."""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from agent_kit import a_token
from delivery_bench import DAY_S, Bench

from agent.credentials import CREDENTIALS_PAUSE_S
from agent.holdings import read_set_aside

PORTAL = b"<html>Request blocked</html>"
TOO_LARGE = b'{"statusCode":"413","code":"EntityTooLarge","message":"The object exceeded the maximum allowed size"}'
ROW_LEVEL = b'{"statusCode":"403","code":"AccessDenied","message":"new row violates row-level security policy"}'
DENIED = b'{"statusCode":"403","code":"AccessDenied","message":"permission denied for table objects"}'
MODES = ["auto", "bucket", "endpoint"]
Answer = tuple[int, bytes]


def to_sale(number: int, answer: Answer, part: str = "/") -> Callable[[str, bytes], Answer | None]:
    """Script an answer to the batch that holds one sale, on paths that contain `part`."""

    def scripted(path: str, body: bytes) -> Answer | None:
        if "heartbeat" in path or part not in path or f'"t-{number}"'.encode() not in gzip.decompress(body):
            return None
        return answer

    return scripted


def set_aside_of(bench: Bench) -> list[int]:
    """How often each batch that is set aside was refused."""
    return [batch.refusals for batch in read_set_aside(bench.config.spool_file)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((400, PORTAL), id="400-html"),
        pytest.param((403, PORTAL), id="403-html"),
        pytest.param((404, PORTAL), id="404-html"),
        pytest.param((401, PORTAL), id="401-html"),
        pytest.param((400, DENIED), id="403-token"),
        pytest.param((200, PORTAL), id="200-html"),
        pytest.param((302, b""), id="302"),
        pytest.param((500, b"{}"), id="500"),
    ],
)
def test_one_batch_that_no_path_takes_does_not_hold_up_the_others(
    make: Callable[..., Bench], mode: str, answer: Answer
) -> None:
    """A proxy that dislikes its bytes, a bug that they trip: it is set aside, and the queue moves on."""
    bench = make(upload={"mode": mode, "retry_wait_max_s": 5.0})
    bench.server.answer = to_sale(2, answer)
    bench.sell(*range(1, 13))
    bench.run_for(1800.0)

    assert sorted(bench.server.numbers()) == [1, *range(3, 13)]
    assert set_aside_of(bench) == [bench.config.upload.refusals_max]
    bench.server.answer = lambda _path, _body: None
    bench.spool.replay_set_aside()
    bench.run_for(60.0)
    assert sorted(bench.server.numbers()) == list(range(1, 13))


@pytest.mark.parametrize("mode", ["auto", "endpoint"])
@pytest.mark.parametrize("answer", [(403, PORTAL), (302, b""), (500, b"{}"), (400, DENIED)])
def test_what_every_batch_meets_is_no_batchs_own(make: Callable[..., Bench], mode: str, answer: Answer) -> None:
    """Calls home get through and nothing else does: all wait, none is set aside, and the order is kept."""
    bench = make(upload={"mode": mode, "retry_wait_max_s": 30.0})
    bench.server.answer = lambda path, _body: None if "heartbeat" in path else answer
    bench.sell(*range(1, 5))
    bench.run_for(1200.0)
    assert bench.spool.state().waiting_rows == 4

    bench.server.answer = lambda _path, _body: None
    bench.run_for(900.0)
    assert sorted(bench.server.numbers()) == [1, 2, 3, 4]
    assert set_aside_of(bench) == []


def test_a_batch_that_one_path_refuses_goes_by_the_other(bench: Bench) -> None:
    """At once, and the others stay on their path."""
    bench.server.answer = to_sale(2, (400, TOO_LARGE), "/storage/")
    bench.sell(1, 2, 3)
    bench.run_for(60.0)

    assert bench.server.numbers() == [1, 2, 3]
    assert bench.paths() == ["bucket", "bucket", "endpoint", "bucket"]


def test_a_batch_that_was_set_aside_is_tried_daily_by_the_path_that_did_not_refuse_it_last(bench: Bench) -> None:
    """So that a limit of one path alone ends by itself."""
    bench.server.answer = to_sale(2, (400, TOO_LARGE))
    bench.sell(1, 2, 3)
    bench.run_for(600.0)
    (batch,) = read_set_aside(bench.config.spool_file)
    bench.server.requests.clear()
    other = {"bucket": "endpoint", "endpoint": "bucket"}[batch.refused_by or ""]
    bench.server.answer = to_sale(
        2, (400, TOO_LARGE), {"bucket": "/storage/", "endpoint": "ingest"}[batch.refused_by or ""]
    )
    bench.run_for(DAY_S + 60.0)

    assert (batch.rows, batch.refusals, batch.since is None) == (1, 5, False)
    assert "413" in (batch.reason or "")
    assert bench.paths() == [other]
    assert sorted(bench.server.numbers()) == [1, 2, 3]


def test_batches_refused_for_a_wrong_token_are_tried_again_once_there_is_another(bench: Bench, tmp_path: Path) -> None:
    """Nobody has to replay them by hand."""
    bench.server.answer = lambda path, _body: None if "heartbeat" in path else (400, ROW_LEVEL)
    bench.sell(1, 2)
    bench.run_for(1800.0)
    assert set_aside_of(bench) == [5, 5]
    bench.server.answer = lambda _path, _body: None
    (tmp_path / "token").write_text(a_token(jti="another"))
    bench.run_for(60.0)

    assert sorted(bench.server.numbers()) == [1, 2]
    assert set_aside_of(bench) == []


def test_another_devices_token_is_not_used(bench: Bench, tmp_path: Path) -> None:
    """It would be refused object by object, and every batch would be set aside."""
    (tmp_path / "token").write_text(a_token(sub="pi-06"))
    bench.sell(1)
    bench.run_for(600.0)

    assert bench.server.requests == []
    assert bench.fault().kind == "credentials"
    assert "the token is pi-06's, but this device is pi-05" in bench.fault().message


def test_a_token_that_expires_while_offline_pauses_and_a_new_one_ends_that_at_once(
    bench: Bench, tmp_path: Path
) -> None:
    """No batch is tried with it; home is asked once a minute at most, and nothing is lost."""
    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(1, 2)
    bench.run_for(600.0)
    bench.clock.pass_s(25 * DAY_S)  # beyond its end, offline
    bench.server.answer = lambda _path, _body: (401, b"{}")
    bench.server.requests.clear()
    bench.run_for(3600.0)
    assert {path.rpartition("/")[2] for path, _, _ in bench.server.requests} == {"heartbeat"}
    assert 30 <= len(bench.server.requests) <= 3600.0 / CREDENTIALS_PAUSE_S + 1
    assert "the token expired at 2027-03-25" in bench.fault().message

    bench.server.answer = lambda _path, _body: None
    (tmp_path / "token").write_text(a_token(bench.clock.now() + timedelta(days=30)))
    assert bench.run_until_stored(5.0) <= 10.0
    bench.run_for(60.0)
    assert bench.server.numbers() == [1, 2]


def test_a_token_that_only_seems_to_have_expired_is_used_once_the_server_takes_it(bench: Bench) -> None:
    """A clock that runs ahead, believed to be right, must not stop deliveries."""
    bench.clock.now_is(bench.clock.now() + timedelta(days=400))
    bench.sell(1, 2)
    bench.run_for(120.0)

    assert bench.server.numbers() == [1, 2]
    assert "heartbeat" in bench.server.requests[0][0]


def test_with_home_out_of_reach_a_token_that_seems_expired_costs_no_busy_loop(bench: Bench) -> None:
    """Steps are as rare as the waits between calls."""
    bench.clock.now_is(bench.clock.now() + timedelta(days=400))
    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(1)
    steps = 0
    end_s = bench.clock.monotonic_s() + 3600.0
    while bench.clock.monotonic_s() < end_s:
        bench.clock.pass_s(bench.delivery.step() + 0.001)
        steps += 1

    assert steps < 400
    assert bench.paths() == []


@pytest.mark.parametrize("boots", [1, 3])
def test_the_oldest_goes_first_across_epochs_and_after_a_set_aside_or_a_resend(
    make: Callable[..., Bench], boots: int
) -> None:
    """By the order in which sales were taken, whatever came between."""
    bench = make(upload={"mode": "bucket", "retry_wait_max_s": 5.0})
    bench.server.answer = lambda _path, _body: (503, b"")
    for boot in range(boots):
        bench.clock.reboot(f"boot-{boot}-again")
        bench.sell(*range(10 * boot, 10 * boot + 3))
    bench.delivery.step()
    expected = [10 * boot + number for boot in range(boots) for number in range(3)]
    bench.server.answer = to_sale(0, (400, TOO_LARGE))
    bench.run_for(600.0)
    assert bench.server.numbers() == expected[1:]

    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(100, 101)
    bench.delivery.step()
    bench.spool.replay_set_aside()
    bench.server.answer = lambda _path, _body: None
    before = len(bench.server.stored)
    bench.run_for(30.0)
    assert bench.server.numbers()[before:] == [0, 100, 101]

    key = list(bench.server.stored)[1]
    bench.spool._connection.execute("update batches set state = 'accepted' where state = 'settled'")
    awaited = next(batch for batch in bench.spool.awaited(100) if batch.name.key == key)
    bench.spool.send_again(awaited, 1)
    bench.sell(200)
    before = len(bench.server.stored)
    bench.run_for(30.0)
    assert bench.server.numbers()[before:] == [expected[2], 200]


def test_a_refusal_names_what_was_said_and_never_what_was_sent(bench: Bench) -> None:
    """The reason is shown to technicians and stands in logs."""
    bench.server.answer = to_sale(1, (422, json.dumps({"message": "no", "echo": "t-1"}).encode()))
    bench.sell(1)
    bench.run_for(600.0)
    (batch,) = read_set_aside(bench.config.spool_file)

    assert "422" in (batch.reason or "")
    assert "t-1" not in (batch.reason or "")
