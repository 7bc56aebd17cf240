"""What was exported is asked about before it is sent: a fake clock, a real spool, a real server on a socket."""

import json
from collections.abc import Callable

import pytest
from agent_kit import BUILT_ON, sale
from delivery_bench import Bench
from test_delivery import PORTAL, only_for

from agent.spool import SealLimits
from wire.heartbeat import AWAITED_MAX


def exported(bench: Bench, count: int, *, on_server: bool) -> None:
    """Put batches of one sale each onto a stick, which the server took in or not."""
    bench.spool.append([sale(number) for number in range(count)])
    bench.spool.seal(SealLimits(1, 1 << 20, 0.0), BUILT_ON)
    batches = bench.spool.kept(settled=False)
    bench.spool.note_exported(batches)
    if on_server:
        bench.server.stored |= {batch.name.key: bench.spool.body(batch) for batch in batches}


def asked_about(bench: Bench) -> list[int]:
    """How many batches each call home asked about."""
    return [len(json.loads(body)["awaits"]) for path, _, body in bench.server.requests if "heartbeat" in path]


def test_what_the_server_has_from_the_stick_is_settled_and_never_sent(bench: Bench) -> None:
    """However many: each call home brings the receipts of as many as it may ask about."""
    exported(bench, 2 * AWAITED_MAX + 7, on_server=True)
    bench.clock.pass_s(3600.0)
    bench.run_for(5.0)

    assert bench.paths() == []
    assert bench.spool.state().settled_rows == 2 * AWAITED_MAX + 7
    assert asked_about(bench)[:3] == [AWAITED_MAX, AWAITED_MAX, 7]


def test_after_weeks_without_internet_the_server_is_asked_first(bench: Bench) -> None:
    """Whichever of the waits of calls and uploads ends first."""
    bench.server.answer = lambda _path, _body: (502, b"bad gateway")
    bench.sell(9)
    bench.run_for(7200.0)
    exported(bench, 40, on_server=True)
    bench.server.answer = lambda _path, _body: None
    bench.server.requests.clear()
    bench.run_for(600.0)

    assert bench.paths() == []
    assert bench.spool.state().settled_rows == 41


def test_what_the_server_does_not_know_is_sent(bench: Bench) -> None:
    """The stick may be lost; a shop that is online again loses no time over it."""
    exported(bench, 30, on_server=False)
    bench.clock.pass_s(3600.0)
    bench.run_for(60.0)

    assert len(bench.paths()) == 30
    assert "heartbeat" in bench.server.requests[0][0]
    bench.run_for(120.0)
    assert bench.spool.state().settled_rows == 30


def test_it_is_sent_although_nobody_answers_calls_home(bench: Bench) -> None:
    """The bucket may be all there is; the next sales must not wait behind a stick's."""
    bench.server.answer = only_for("heartbeat", (200, PORTAL))
    exported(bench, 30, on_server=False)
    bench.sell(100)
    bench.clock.pass_s(3600.0)
    bench.run_for(600.0)

    assert len(bench.server.stored) == 31


def test_a_copy_asked_for_of_what_was_never_sent_is_no_other_name(bench: Bench) -> None:
    """The first copy is still to be sent, under its own name."""
    exported(bench, 1, on_server=False)
    (batch,) = bench.spool.kept(settled=False)
    assert not bench.spool.send_again(batch, 1)
    bench.clock.pass_s(3600.0)
    bench.run_for(5.0)

    assert list(bench.server.stored) == [batch.name.key]


@pytest.mark.parametrize("state", ["waiting", "set_aside"])
def test_those_that_were_accepted_are_asked_about_before_any_number_on_sticks(
    make: Callable[..., Bench],
    state: str,
) -> None:
    """A stick that got lost must not keep receipts from coming."""
    bench = make()
    exported(bench, AWAITED_MAX + 5, on_server=False)
    bench.sell(9_999)
    bench.spool.seal(SealLimits(1, 1 << 20, 0.0), BUILT_ON)
    *on_stick, sent = bench.spool.kept(settled=False)
    bench.spool.accept(sent, "bucket")
    if state == "set_aside":
        for batch in on_stick:
            assert bench.spool.refuse(batch, "refused", refusals_max=1)

    awaited = bench.spool.awaited(AWAITED_MAX)
    assert (awaited[0].number, len(awaited)) == (sent.number, AWAITED_MAX)
