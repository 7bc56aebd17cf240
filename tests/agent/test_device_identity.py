"""The conversation by which a device comes by its tokens: with a code, with its key, and with everybody in between."""

from collections.abc import Callable
from pathlib import Path

import pytest
from agent_kit import DEVICE, FakeServer, a_token, write_config
from fakes import FakeClock
from office import CODE, Office

from agent import config as configuration
from agent.config import Config
from agent.device_key import DeviceKey, pending_file, read_key, write_key
from agent.errors import CredentialsRefused, DeliveryFault, LocalFault, OperatorNeeded, Wait
from agent.identity import Welcome, enrol, keep, renew
from agent.transport import client_of

Answer = Callable[[str, bytes], tuple[int, bytes] | None]


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Config:
    """Give a config with a spool folder, and a token by hand."""
    (tmp_path / "spool").mkdir()
    return configuration.load(write_config(tmp_path, server.url))


def let_in(config: Config, clock: FakeClock, code: str = CODE, device_id: str | None = DEVICE) -> Welcome:
    """Enrol with a client of its own."""
    with client_of(config) as client:
        return enrol(config, client, clock, code=code, device_id=device_id, owner=None)


def renewed(config: Config, clock: FakeClock) -> str:
    """Renew, and return what is in the token file."""
    with client_of(config) as client:
        renew(config, client, clock)
    return config.token_file.read_text().strip()


def modes(*files: Path) -> list[int]:
    """Who may do what with these files."""
    return [file.stat().st_mode & 0o777 for file in files]


def test_a_code_brings_key_and_token_and_the_key_brings_the_next(
    config: Config, office: Office, clock: FakeClock
) -> None:
    """Both for the agent's eyes alone."""
    keep(config, let_in(config, clock), None)
    first = config.token_file.read_text().strip()
    second = renewed(config, clock)

    assert [first, second] == office.issued
    assert modes(config.device_key_file, config.token_file) == [0o600, 0o600]
    assert not pending_file(config.device_key_file).exists()
    assert [path for path, _ in office.asked] == ["/oauth/nonce", "/enrol", "/oauth/nonce", "/oauth/token"]


@pytest.mark.parametrize("years", [-40, -1, 1, 60])
def test_the_clock_has_no_part_in_it(config: Config, office: Office, clock: FakeClock, years: int) -> None:
    """What is signed has the server's time in it."""
    clock.synced = False
    clock.now_is(clock.now().replace(year=clock.now().year + years))
    keep(config, let_in(config, clock), None)

    assert renewed(config, clock) == office.issued[-1]


def test_an_enrolment_that_was_cut_goes_on_with_the_same_key(
    config: Config, office: Office, clock: FakeClock, server: FakeServer
) -> None:
    """The server took the code, the answer was lost; the key had been kept before."""

    def lose(path: str, body: bytes) -> tuple[int, bytes] | None:
        said = office.answer(path, body)
        return (502, b"") if path == "/enrol" else said

    server.answer = lose
    with pytest.raises(Wait):
        let_in(config, clock)
    assert office.key is not None
    assert read_key(config.device_key_file) is None
    server.answer = office.answer
    keep(config, let_in(config, clock), None)
    again = let_in(config, clock)

    assert renewed(config, clock) == office.issued[-1]
    assert read_key(config.device_key_file) == again.key


def test_another_code_brings_another_key_and_the_old_one_stays_until_then(
    config: Config, office: Office, clock: FakeClock
) -> None:
    """Whoever copied the card has the old one."""
    keep(config, let_in(config, clock), None)
    before = read_key(config.device_key_file)
    with pytest.raises(CredentialsRefused):
        let_in(config, clock, code="0000-0000-0000-0000")
    assert read_key(config.device_key_file) == before
    office.code, office.key = "1111-1111-1111-1111", None
    keep(config, let_in(config, clock, code=office.code), None)
    after = read_key(config.device_key_file)

    assert before is not None
    assert after is not None
    assert before.private_key != after.private_key
    assert renewed(config, clock) == office.issued[-1]


def test_a_new_key_that_the_server_took_in_before_the_power_went_is_put_in_force_by_itself(
    config: Config, office: Office, clock: FakeClock
) -> None:
    """Nobody has to come back: the token that counted, and the key before, were ended by it."""
    keep(config, let_in(config, clock), None)
    office.code, office.key = "1111-1111-1111-1111", None
    welcome = let_in(config, clock, code=office.code)
    assert read_key(config.device_key_file) != welcome.key

    assert renewed(config, clock) == office.issued[-1]
    assert read_key(config.device_key_file) == welcome.key
    assert not pending_file(config.device_key_file).exists()


def test_a_new_key_that_the_server_never_heard_of_changes_nothing(
    config: Config, office: Office, clock: FakeClock
) -> None:
    """The one in force goes on renewing, and a refusal is told as it was."""
    keep(config, let_in(config, clock), None)
    write_key(pending_file(config.device_key_file), DeviceKey("A" * 43 + "=", None, ""))
    assert renewed(config, clock) == office.issued[-1]
    office.is_revoked = True
    with pytest.raises(CredentialsRefused, match="revoked"):
        renewed(config, clock)


def test_what_is_no_code_is_not_even_sent(config: Config, office: Office, clock: FakeClock) -> None:
    """A wrong one would cost a try."""
    with pytest.raises(CredentialsRefused, match="16 letters and digits"):
        let_in(config, clock, code="pi-05")

    assert office.asked == []


def test_a_code_of_another_device_is_refused_and_says_whose_it_is(
    config: Config, office: Office, clock: FakeClock
) -> None:
    """Nothing of this device's changes."""
    office.device = "pi-06"
    before = config.token_file.read_text()
    with pytest.raises(CredentialsRefused, match="pi-06"):
        let_in(config, clock)

    assert (office.key, config.token_file.read_text()) == (None, before)


PORTAL = (200, b"<html>Free WiFi</html>")


ANSWERS: list[tuple[tuple[int, bytes], type[DeliveryFault]]] = [
    (PORTAL, OperatorNeeded),
    ((200, b"{}"), OperatorNeeded),
    ((302, b""), OperatorNeeded),
    ((404, b'{"error":"not_found","message":"there is nothing here"}'), OperatorNeeded),
    ((500, b""), Wait),
    ((503, b'{"error":"temporarily_unavailable"}'), Wait),
    ((429, b'{"error":"temporarily_unavailable"}'), Wait),
    ((400, b'{"error":"invalid_grant"}'), CredentialsRefused),
    ((401, b'{"error":"invalid_client"}'), CredentialsRefused),
    ((400, b'{"error":"invalid_request"}'), OperatorNeeded),
    ((401, b"<html>log in</html>"), CredentialsRefused),
]


@pytest.mark.parametrize("path", ["/oauth/nonce", "/enrol", "/oauth/token"])
def test_whatever_is_answered_key_and_token_stay_as_they_were(
    config: Config, office: Office, clock: FakeClock, server: FakeServer, path: str
) -> None:
    """Sorted by what is to be done about it."""
    keep(config, let_in(config, clock), None)
    before = (config.device_key_file.read_bytes(), config.token_file.read_bytes())
    found = []
    for said, _ in ANSWERS:
        server.answer = lambda asked, body, said=said: said if asked == path else office.answer(asked, body)
        with pytest.raises(DeliveryFault) as raised:
            let_in(config, clock) if path == "/enrol" else renewed(config, clock)
        found.append((said, type(raised.value)))

    assert found == ANSWERS
    assert (config.device_key_file.read_bytes(), config.token_file.read_bytes()) == before


def test_a_token_of_another_device_is_not_put_in_place(
    config: Config, office: Office, clock: FakeClock, server: FakeServer
) -> None:
    """Every delivery with it would be refused."""
    keep(config, let_in(config, clock), None)
    before = config.token_file.read_bytes()
    other = Office(device="pi-06", key=office.key)

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        return other._issue() if path == "/oauth/token" else office.answer(path, body)

    server.answer = answer
    with pytest.raises(OperatorNeeded, match="no token of pi-05"):
        renewed(config, clock)
    assert config.token_file.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"private_key":"AAAA","device_id":"pi-05","code_sha256":""}']
)
def test_a_damaged_key_is_told_and_another_code_mends_it(
    config: Config, office: Office, clock: FakeClock, content: bytes
) -> None:
    """The device keeps its name."""
    config.device_key_file.write_bytes(content)
    with pytest.raises(CredentialsRefused, match="device's key"):
        renewed(config, clock)
    keep(config, let_in(config, clock), None)

    assert renewed(config, clock) == office.issued[-1]


def test_a_key_of_another_device_is_not_used(config: Config, office: Office, clock: FakeClock) -> None:
    """A card that was cloned, and given another name."""
    write_key(config.device_key_file, DeviceKey("A" * 43 + "=", "pi-06", ""))
    with pytest.raises(CredentialsRefused, match="pi-06"):
        renewed(config, clock)

    assert office.asked == []


def test_where_the_key_cant_be_kept_nothing_is_sent(config: Config, office: Office, clock: FakeClock) -> None:
    """A code used up by a key that is lost would be of no use."""
    pending_file(config.device_key_file).mkdir()
    with pytest.raises(LocalFault, match="Nothing was sent"):
        let_in(config, clock)

    assert office.asked == []


def test_no_fault_names_a_secret(config: Config, office: Office, clock: FakeClock, server: FakeServer) -> None:
    """Neither code, key nor token, whatever the server repeats."""
    keep(config, let_in(config, clock), None)
    key = read_key(config.device_key_file)
    assert key is not None
    faults = []
    for answer in (PORTAL, (500, b""), (400, b'{"error":"invalid_grant","error_description":"no"}')):
        server.answer = lambda _path, _body, answer=answer: answer
        with pytest.raises(DeliveryFault) as raised:
            let_in(config, clock)
        faults.append(str(raised.value) + repr(raised.value))
    told = "".join(faults) + repr(key) + repr(Welcome(key, a_token()))

    assert [secret for secret in (CODE, key.private_key, office.issued[0], a_token()) if secret in told] == []
