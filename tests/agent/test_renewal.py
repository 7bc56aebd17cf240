"""When the delivery loop renews its token: a fake clock, a real spool, a real server on a socket."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from agent_kit import FakeServer, a_token
from delivery_bench import DAY_S, Bench
from fakes import FakeClock
from office import Office

from agent.config import Config
from agent.device_key import DeviceKey, write_key
from agent.errors import CredentialsRefused, DeliveryFault, LocalFault, OperatorNeeded, Wait
from agent.renewal import AGAIN_AFTER_S, TRY_AGAIN_S

KEY = DeviceKey("A" * 43 + "=", "pi-05", "")
REFUSED = (401, b'{"message":"jwt expired"}')


class Renewals:
    """What stands in for the process that renews: puts a token in place, or raises what it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.at_s: list[float] = []
        self.fault: DeliveryFault | LocalFault | None = None
        self.issued: list[str] = []

    def __call__(self, config: Config) -> None:
        """Renew, once."""
        self.at_s.append(self.clock.monotonic_s())
        if self.fault is not None:
            raise self.fault
        # The server's time, whatever the device's clock says.
        now = Office().now + timedelta(seconds=self.clock.monotonic_s())
        self.issued.append(a_token(now + timedelta(days=30), iat=int(now.timestamp()), jti=str(len(self.issued))))
        config.token_file.write_text(self.issued[-1])


@pytest.fixture
def renewals(clock: FakeClock) -> Renewals:
    """Give what renews."""
    return Renewals(clock)


@pytest.fixture
def bench(make: Callable[..., Bench], renewals: Renewals) -> Bench:
    """Give a delivery loop of a device that has a key, and a token of 30 days from now on."""
    made = make()
    enrolled(made, renewals)
    return made


def enrolled(bench: Bench, renewals: Renewals) -> None:
    """Give the device a key."""
    bench.delivery._renewal._renew = renewals
    write_key(bench.config.device_key_file, KEY)
    now = bench.clock.now()
    bench.config.token_file.write_text(a_token(now + timedelta(days=30), iat=int(now.timestamp())))


def only(tokens: list[str], server: FakeServer) -> Callable[[str, bytes], tuple[int, bytes] | None]:
    """Script a server that takes these tokens alone."""

    def answer(_path: str, _body: bytes) -> tuple[int, bytes] | None:
        token = server.requests[-1][1]["Authorization"].removeprefix("Bearer ")
        return None if token in tokens else REFUSED

    return answer


def asking(server: FakeServer, *, while_token_is: str) -> Callable[[str, bytes], tuple[int, bytes] | None]:
    """Script a server that asks for renewal as long as the device comes with this token."""

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        token = server.requests[-1][1]["Authorization"].removeprefix("Bearer ")
        return (200, server.reply(body, renew_token=token == while_token_is)) if "heartbeat" in path else None

    return answer


def test_a_token_is_renewed_once_half_its_life_is_over(bench: Bench, renewals: Renewals) -> None:
    """Twice in thirty days, long before it ends, and never while it is young."""
    begun_s = bench.clock.monotonic_s()
    for _ in range(62):
        bench.run_for(0.1)
        bench.clock.pass_s(DAY_S / 2)
    days = [round((at_s - begun_s) / DAY_S) for at_s in renewals.at_s]

    assert days == [15, 30]


def test_a_renewed_token_is_used_without_a_pause(bench: Bench, renewals: Renewals) -> None:
    """The first delivery after it carries it."""
    bench.clock.pass_s(16 * DAY_S)
    bench.sell(1)
    bench.run_for(5.0)

    assert {headers["Authorization"] for _, headers, _ in bench.server.requests} == {f"Bearer {renewals.issued[0]}"}
    assert bench.server.numbers() == [1]


def test_a_call_home_that_asks_for_it_has_the_token_renewed(bench: Bench, renewals: Renewals) -> None:
    """Once, for it doesn't ask any more then."""
    bench.server.answer = asking(bench.server, while_token_is=bench.config.token_file.read_text().strip())
    bench.run_for(3600.0)

    assert len(renewals.at_s) == 1


def test_a_server_that_asks_and_asks_is_obeyed_seldom(bench: Bench, renewals: Renewals) -> None:
    """It keeps a row for each token."""
    bench.server.answer = lambda path, body: (
        (200, bench.server.reply(body, renew_token=True)) if "heartbeat" in path else None
    )
    bench.run_for(3600.0)

    assert 2 <= len(renewals.at_s) <= 3600.0 / AGAIN_AFTER_S + 1


@pytest.mark.parametrize("years_wrong", [-1, 0, 1])
@pytest.mark.parametrize("is_synced", [True, False])
def test_a_token_that_ended_while_the_device_was_off_is_renewed_at_once(
    bench: Bench, renewals: Renewals, years_wrong: int, is_synced: bool
) -> None:
    """Ninety days, whatever the clock believes; nothing of the spool changes hands."""
    bench.sell(1)
    before = bench.spool.epoch_states()
    bench.clock.pass_s(90 * DAY_S)
    bench.clock.now_is(bench.clock.now() + timedelta(days=365 * years_wrong))
    bench.clock.synced = is_synced
    bench.server.answer = only(renewals.issued, bench.server)
    bench.run_for(60.0)

    assert bench.server.numbers() == [1]
    assert len(renewals.at_s) == 1
    assert [(state.epoch, state.head) for state in bench.spool.epoch_states()] == [
        (state.epoch, state.head) for state in before
    ]
    assert bench.board.facts.renewal_fault is None


def test_a_missing_or_damaged_token_is_replaced_by_key(bench: Bench, renewals: Renewals) -> None:
    """The key is all that is needed."""
    for content in (None, "nonsense"):
        bench.config.token_file.unlink()
        if content:
            bench.config.token_file.write_text(content)
        bench.run_for(AGAIN_AFTER_S + 60.0)

    assert len(renewals.at_s) == 2
    assert bench.status().token_problem is None


def test_while_the_server_cant_be_reached_it_is_tried_once_a_minute_at_most_and_for_ever(
    bench: Bench, renewals: Renewals
) -> None:
    """Later each time, up to the longest wait; sales are taken meanwhile, and what counts goes on counting."""
    renewals.fault = Wait("sales.example.com: can't connect")
    bench.server.answer = lambda _path, _body: REFUSED
    bench.sell(1)
    bench.run_for(DAY_S)
    gaps_s = [later - earlier for earlier, later in zip(renewals.at_s, renewals.at_s[1:], strict=False)]
    assert min(gaps_s) >= TRY_AGAIN_S
    assert max(gaps_s) <= bench.config.upload.retry_wait_max_s + 60.0
    assert bench.spool.state().unsent_rows == 1
    renewals.fault = None
    bench.server.answer = only(renewals.issued, bench.server)
    bench.run_for(bench.config.upload.retry_wait_max_s + 120.0)

    assert bench.server.numbers() == [1]


def test_a_refused_renewal_is_seldom_repeated_and_never_un_enrols(bench: Bench, renewals: Renewals) -> None:
    """A revoked device goes on by itself once it is let in again; until then it says whom to ask."""
    renewals.fault = CredentialsRefused("this device is revoked: ask the back office")
    bench.server.answer = lambda _path, _body: REFUSED
    bench.sell(1)
    bench.run_for(7200.0)
    fault = bench.board.facts.renewal_fault
    assert 2 <= len(renewals.at_s) <= 7200.0 / AGAIN_AFTER_S + 1
    assert fault is not None
    assert (fault.kind, "revoked" in fault.message) == ("credentials", True)
    assert bench.config.device_key_file.exists()
    renewals.fault = None
    bench.server.answer = only(renewals.issued, bench.server)
    bench.run_for(2 * AGAIN_AFTER_S)

    assert bench.server.numbers() == [1]
    assert bench.board.facts.renewal_fault is None


def test_a_new_key_is_tried_at_once(bench: Bench, renewals: Renewals) -> None:
    """A technician who has enrolled it anew waits for nothing."""
    renewals.fault = CredentialsRefused("unknown key")
    bench.server.answer = lambda _path, _body: REFUSED
    bench.run_for(120.0)
    tried = len(renewals.at_s)
    write_key(bench.config.device_key_file, DeviceKey("B" * 43 + "=", "pi-05", ""))
    bench.run_for(6.0)

    assert len(renewals.at_s) == tried + 1


def test_a_clock_that_makes_a_new_token_look_old_is_not_believed(bench: Bench, renewals: Renewals) -> None:
    """A time server may be wrong, too: it must not have a token issued every few minutes."""
    bench.clock.now_is(bench.clock.now() + timedelta(days=400))
    bench.run_for(DAY_S)

    assert len(renewals.at_s) == 1


def test_a_token_that_is_refused_though_it_was_just_renewed_is_not_renewed_all_the_time(
    bench: Bench, renewals: Renewals
) -> None:
    """Such as where the project has another secret than the server that signs."""
    bench.server.answer = lambda _path, _body: REFUSED
    bench.run_for(3600.0)

    assert 2 <= len(renewals.at_s) <= 3600.0 / AGAIN_AFTER_S + 1


def test_without_a_key_nothing_is_renewed_and_a_token_by_hand_ends_the_pause(
    make: Callable[..., Bench], renewals: Renewals, tmp_path: Path
) -> None:
    """As before there were keys."""
    bench = make()
    bench.delivery._renewal._renew = renewals
    bench.server.answer = lambda _path, _body: REFUSED
    bench.sell(1)
    bench.run_for(3600.0)
    bench.server.answer = lambda _path, _body: None
    (tmp_path / "token").write_text(a_token(bench.clock.now() + timedelta(days=30)))
    bench.run_for(10.0)

    assert renewals.at_s == []
    assert bench.server.numbers() == [1]


def test_a_token_put_in_place_by_hand_counts_for_an_enrolled_device_too(bench: Bench, renewals: Renewals) -> None:
    """Where renewing fails, a person may always help."""
    renewals.fault = OperatorNeeded("it answered 404")
    bench.server.answer = lambda _path, _body: REFUSED
    bench.sell(1)
    bench.run_for(600.0)
    bench.server.answer = lambda _path, _body: None
    bench.config.token_file.write_text(a_token(bench.clock.now() + timedelta(days=29)))
    bench.run_for(10.0)

    assert bench.server.numbers() == [1]


@pytest.mark.parametrize(
    "fault", [Wait("away"), CredentialsRefused("no"), OperatorNeeded("odd"), LocalFault("No space left on device")]
)
def test_whatever_becomes_of_a_renewal_a_token_that_counts_goes_on_delivering(
    bench: Bench, renewals: Renewals, fault: DeliveryFault | LocalFault
) -> None:
    """Half its life is left."""
    renewals.fault = fault
    bench.clock.pass_s(16 * DAY_S)
    bench.sell(1, 2)
    bench.run_for(30.0)

    assert sorted(bench.server.numbers()) == [1, 2]
    assert bench.board.facts.renewal_fault is not None
