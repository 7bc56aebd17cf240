"""The secrets beside an embedded database: made once, never made anew."""

import os
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from endpoints import NOW, SECRET

from server import secrets, tokens
from server.errors import Misconfigured

GIVEN = {"SUPABASE_JWT_SECRET": SECRET}


def test_a_secret_is_made_once_closed_to_others_and_kept(connection: psycopg.Connection, tmp_path: Path):
    """A secret is made once closed to others and kept."""
    made = secrets.keep_jwt_secret(connection, tmp_path, {})
    kept = secrets.keep_jwt_secret(connection, tmp_path, {})

    path = secrets.jwt_secret_file(tmp_path)
    assert made == kept == path.read_text().strip()
    assert len(made) >= secrets.BYTES_MIN
    assert [p.stat().st_mode & 0o777 for p in (path.parent, path)] == [0o700, 0o600]


def test_the_environments_secret_wins_and_is_not_written_down(connection: psycopg.Connection, tmp_path: Path):
    """The environment's secret wins and is not written down."""
    assert secrets.keep_jwt_secret(connection, tmp_path, GIVEN) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_a_lost_secret_is_never_made_anew_while_devices_exist(connection: psycopg.Connection, tmp_path: Path):
    """A lost secret is never made anew while devices exist."""
    secrets.keep_jwt_secret(connection, tmp_path, {})
    tokens.add_device(connection, "pi-05")
    secrets.jwt_secret_file(tmp_path).unlink()

    with pytest.raises(Misconfigured, match="backup"):
        secrets.keep_jwt_secret(connection, tmp_path, {})
    assert not secrets.jwt_secret_file(tmp_path).exists()
    assert secrets.keep_jwt_secret(connection, tmp_path, GIVEN) == SECRET


@pytest.mark.parametrize("content", ["", "short", "x" * 31])
def test_a_damaged_or_short_secret_is_refused(connection: psycopg.Connection, tmp_path: Path, content: str):
    """A damaged or short secret is refused."""
    path = secrets.jwt_secret_file(tmp_path)
    path.parent.mkdir()
    path.write_text(content)

    with pytest.raises(Misconfigured, match="32 bytes"):
        secrets.keep_jwt_secret(connection, tmp_path, {})
    assert path.read_text() == content


def test_where_no_secret_is_found_the_error_says_where_it_may_come_from(tmp_path: Path):
    """Where no secret is found the error says where it may come from."""
    with pytest.raises(Misconfigured, match="SUPABASE_JWT_SECRET"):
        secrets.need_jwt_secret(None, {})
    with pytest.raises(Misconfigured, match="scout-server up"):
        secrets.need_jwt_secret(tmp_path, {})


def kept_token(data: Path) -> str:
    """The service token on the disk."""
    return secrets.service_token_file(data).read_text().strip()


def test_the_service_token_is_kept_until_half_its_life_is_over(connection: psycopg.Connection, tmp_path: Path):
    """The service token is kept until half its life is over."""
    renewed = [
        secrets.keep_service_token(connection, tmp_path, SECRET, NOW + timedelta(days=days)) for days in (0, 14, 16, 60)
    ]

    assert renewed == [True, False, True, True]
    assert secrets.service_token_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert tokens.verify(kept_token(tmp_path), SECRET, connection, NOW + timedelta(days=60)).role == "service_role"


def test_a_service_token_that_is_damaged_revoked_or_of_another_secret_is_replaced(
    connection: psycopg.Connection, tmp_path: Path
):
    """A service token that is damaged revoked or of another secret is replaced."""
    secrets.keep_service_token(connection, tmp_path, "another-secret-of-at-least-32-bytes-", NOW)
    assert secrets.keep_service_token(connection, tmp_path, SECRET, NOW)

    secrets.service_token_file(tmp_path).write_bytes(b"\xff\xfe")
    assert secrets.keep_service_token(connection, tmp_path, SECRET, NOW)

    connection.execute("update scout_edge.tokens set revoked_at = now()")
    assert secrets.keep_service_token(connection, tmp_path, SECRET, NOW)
    assert not secrets.keep_service_token(connection, tmp_path, SECRET, NOW)


def test_signing_with_another_secret_than_the_running_server_is_noticed(connection: psycopg.Connection, tmp_path: Path):
    """Signing with another secret than the running server is noticed."""
    secrets.keep_service_token(connection, tmp_path, SECRET, NOW)

    secrets.refuse_other_secret(tmp_path, SECRET, NOW + timedelta(days=90))
    with pytest.raises(Misconfigured, match="another JWT secret"):
        secrets.refuse_other_secret(tmp_path, "another-secret-of-at-least-32-bytes-", NOW)


def changed(connection: psycopg.Connection, data: Path, *, leaked: bool = False) -> tuple[str, str]:
    """The secret before a change, and after it; the change happens at NOW."""
    before = secrets.keep_jwt_secret(connection, data, {})
    secrets.change_jwt_secret(data, {}, leaked=leaked)
    if not leaked:
        os.utime(secrets.previous_secret_file(data), (NOW.timestamp(), NOW.timestamp()))
    return before, secrets.keep_jwt_secret(connection, data, {})


def test_a_changed_secret_leaves_the_one_before_it_good_for_the_life_of_a_token(
    connection: psycopg.Connection, tmp_path: Path
):
    """Devices or not: nothing is lost by it, and it ends by itself."""
    tokens.add_device(connection, "pi-05")
    secrets.write(secrets.jwt_secret_file(tmp_path), SECRET)
    before, after = changed(connection, tmp_path)
    previous = secrets.find_previous_secret(tmp_path, {}, NOW)

    assert before == SECRET != after
    assert previous is not None
    assert (previous.text, previous.until) == (before, NOW + timedelta(days=30))
    assert secrets.previous_secret_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert secrets.find_previous_secret(tmp_path, {}, NOW + timedelta(days=30)) is None


def test_a_leaked_secret_is_good_for_nothing_after_the_change(connection: psycopg.Connection, tmp_path: Path):
    """Nor is the one that was kept from an earlier change."""
    changed(connection, tmp_path)
    before, after = changed(connection, tmp_path, leaked=True)

    assert before != after
    assert secrets.find_previous_secret(tmp_path, {}, NOW) is None


def test_the_environments_secrets_are_changed_in_the_environment(tmp_path: Path):
    """We don't write there; the one before it is taken from there, too."""
    with pytest.raises(Misconfigured, match="SUPABASE_JWT_SECRET_PREVIOUS"):
        secrets.change_jwt_secret(tmp_path, GIVEN, leaked=False)
    previous = secrets.find_previous_secret(None, {"SUPABASE_JWT_SECRET_PREVIOUS": SECRET}, NOW)

    assert previous is not None
    assert (previous.text, list(tmp_path.iterdir())) == (SECRET, [])
    assert SECRET not in repr(previous)
    with pytest.raises(Misconfigured, match="32 bytes"):
        secrets.find_previous_secret(None, {"SUPABASE_JWT_SECRET_PREVIOUS": "short"}, NOW)
