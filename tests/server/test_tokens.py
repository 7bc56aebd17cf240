"""Tokens: who is let in, and who no longer."""

from datetime import timedelta

import jwt
import psycopg
import pytest
from endpoints import NOW, SECRET, claims_of_device, signed
from hypothesis import given
from hypothesis import strategies as st

from server import tokens
from server.errors import Misconfigured


def issue(connection: psycopg.Connection, device_id: str = "pi-05", **changed: object) -> str:
    """Issue a token of 30 days, unless changed."""
    arguments = {"days": 30, "now": NOW} | changed
    return tokens.issue(connection, SECRET, device_id, tokens.EDGE_UPLOADER, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def fleet(connection: psycopg.Connection) -> psycopg.Connection:
    """A database that knows pi-05."""
    tokens.add_device(connection, "pi-05")
    return connection


def test_an_issued_token_verifies_and_names_its_device(fleet: psycopg.Connection):
    """An issued token verifies and names its device."""
    identity = tokens.verify(issue(fleet), SECRET, fleet, NOW)

    assert (identity.subject, identity.role) == ("pi-05", "edge_uploader")
    assert identity.expires_at - identity.issued_at == 30 * 86_400


def test_a_token_is_recorded_by_its_id_and_never_whole(fleet: psycopg.Connection):
    """A token is recorded by its id and never whole."""
    token = issue(fleet)

    (row,) = fleet.execute("select * from scout_edge.tokens").fetchall()
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]
    assert str(row[0]) == jti
    assert token not in str(row)
    assert token.rpartition(".")[2] not in str(row)


def test_a_token_is_good_to_the_second_before_it_expires(fleet: psycopg.Connection):
    """A token is good to the second before it expires."""
    token = issue(fleet, days=1)
    end = NOW + timedelta(days=1)

    assert tokens.verify(token, SECRET, fleet, end - timedelta(seconds=1)).subject == "pi-05"
    with pytest.raises(tokens.TokenRefused, match="exp"):
        tokens.verify(token, SECRET, fleet, end)


def test_revoking_a_device_is_effective_at_once_and_so_is_restoring_it(fleet: psycopg.Connection):
    """Revoking a device is effective at once and so is restoring it."""
    token = issue(fleet)
    fleet.execute("update scout_edge.devices set revoked_at = now()")
    with pytest.raises(tokens.SubjectRefused, match="revoked"):
        tokens.verify(token, SECRET, fleet, NOW)

    fleet.execute("update scout_edge.devices set revoked_at = null")
    assert tokens.verify(token, SECRET, fleet, NOW).subject == "pi-05"


def test_revoking_one_token_leaves_the_devices_others(fleet: psycopg.Connection):
    """Revoking one token leaves the device's others."""
    first, second = issue(fleet), issue(fleet)
    jti = jwt.decode(first, options={"verify_signature": False})["jti"]
    fleet.execute("update scout_edge.tokens set revoked_at = now() where jti = %s", [jti])

    with pytest.raises(tokens.TokenRefused, match="revoked"):
        tokens.verify(first, SECRET, fleet, NOW)
    assert tokens.verify(second, SECRET, fleet, NOW).subject == "pi-05"


def test_after_a_rotation_within_this_second_old_tokens_are_void_and_a_new_one_is_good(fleet: psycopg.Connection):
    """After a rotation within this second old tokens are void and a new one is good."""
    old = issue(fleet)
    rotated = NOW + timedelta(milliseconds=300)
    fleet.execute("update scout_edge.devices set tokens_valid_from = %s", [NOW + timedelta(seconds=1)])

    new = issue(fleet, now=rotated)

    with pytest.raises(tokens.TokenRefused, match="renewed"):
        tokens.verify(old, SECRET, fleet, rotated)
    assert tokens.verify(new, SECRET, fleet, rotated).subject == "pi-05"


def test_a_token_whose_id_was_never_recorded_is_good(fleet: psycopg.Connection):
    """After a restore from a backup, the tokens issued since are unknown, and the shops hold them."""
    token = signed(claims_of_device(jti="0b5c1c6e-58a4-4d6b-9f6e-111111111111"))

    assert tokens.verify(token, SECRET, fleet, NOW).subject == "pi-05"


@pytest.mark.parametrize("days", [0, -1, 31, 3650])
def test_a_device_gets_no_token_of_another_length(fleet: psycopg.Connection, days: int):
    """A device gets no token of another length."""
    with pytest.raises(Misconfigured, match="30 days"):
        issue(fleet, days=days)


def test_a_revoked_or_unknown_device_gets_no_token(fleet: psycopg.Connection):
    """A revoked or unknown device gets no token."""
    with pytest.raises(Misconfigured, match="not known"):
        issue(fleet, "pi-06")
    fleet.execute("update scout_edge.devices set revoked_at = now()")
    with pytest.raises(Misconfigured, match="revoked"):
        issue(fleet)


@pytest.mark.parametrize("device_id", ["", "Pi-05", "pi_05", "3f0c9a2e-7a35-4c93-9d52-0c9d4a1b2c3d", "x" * 64])
def test_what_cant_name_a_device_is_not_added(connection: psycopg.Connection, device_id: str):
    """What can't name a device is not added."""
    with pytest.raises(Misconfigured, match="device id"):
        tokens.add_device(connection, device_id)
    assert not tokens.any_device(connection)


def test_adding_a_device_twice_says_so(connection: psycopg.Connection):
    """Adding a device twice says so."""
    added = [tokens.add_device(connection, "pi-05") for _ in range(2)]

    assert added == [True, False]


def test_a_refusal_never_quotes_the_token(fleet: psycopg.Connection):
    """A refusal never quotes the token."""
    for token in (issue(fleet)[:-4] + "AAAA", "a.b.c", "secret-looking-text"):
        with pytest.raises(tokens.TokenRefused) as refused:
            tokens.verify(token, SECRET, fleet, NOW)
        assert token not in str(refused.value)


def test_a_service_token_needs_no_device(connection: psycopg.Connection):
    """A service token needs no device."""
    token = tokens.issue(connection, SECRET, "operator", tokens.SERVICE_ROLE, days=365, now=NOW)

    assert tokens.verify(token, SECRET, connection, NOW).role == "service_role"


@pytest.mark.parametrize("role", ["postgres", "anon", ""])
def test_other_roles_are_not_issued(connection: psycopg.Connection, role: str):
    """Other roles are not issued."""
    with pytest.raises(Misconfigured, match="role"):
        tokens.issue(connection, SECRET, "pi-05", role, days=1, now=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.text() | st.from_regex(r"[\w-]+\.[\w-]*\.[\w-]*", fullmatch=True))
def test_whatever_the_text_it_is_refused_and_nothing_else_is_raised(text: str) -> None:
    """Whatever the text, it is refused, and nothing else is raised."""
    with pytest.raises(tokens.TokenRefused):
        tokens.read(text, SECRET, NOW)


@given(st.dictionaries(st.sampled_from(["role", "sub", "iat", "exp", "nbf", "jti", "aud"]), JSON))
def test_whatever_the_claims_they_are_refused_or_keep_what_was_promised(changed: dict[str, object]) -> None:
    """Whatever the claims, they are refused, or keep what was promised."""
    try:
        identity = tokens.read(signed(claims_of_device() | changed), SECRET, NOW)
    except tokens.TokenRefused:
        return
    assert identity.expires_at > NOW.timestamp()
    assert identity.issued_at <= NOW.timestamp() + tokens.AHEAD_S_MAX
    if identity.role == tokens.EDGE_UPLOADER:
        assert identity.subject
        assert identity.expires_at - identity.issued_at <= 30 * 86_400
