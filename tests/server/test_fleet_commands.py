"""`devices` and `tokens`: what an operator types, what it prints, and what it must not do unasked."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import jwt
import psycopg
import pytest
from endpoints import SECRET
from programs import scout_server

from server import fleet, tokens
from wire.identity import plain_code

Told = Callable[..., subprocess.CompletedProcess[str]]
GIVEN = {"SUPABASE_JWT_SECRET": SECRET}
COMMANDS = [
    *(f"devices {name}" for name in ("list", "show", "add", "code", "revoke", "restore", "confirm-revoked")),
    *(f"tokens {name}" for name in ("list", "rotate", "revoke", "change-secret")),
]


@pytest.fixture
def told(database_url: str) -> Told:
    """Run a command against the test's own database."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return scout_server(*words, "--database-url", database_url, **GIVEN)

    return run


def token(connection: psycopg.Connection, device_id: str, days: int, *, with_key: bool = False) -> str:
    """A token that has so many days left; its id."""
    now = datetime.now(UTC)  # noqa: TID251  (as the command's own clock)
    tokens.add_device(connection, device_id)
    issued = tokens.issue(
        connection, SECRET, device_id, tokens.EDGE_UPLOADER, days=30, now=now - timedelta(days=30 - days)
    )
    if with_key:
        connection.execute(
            "update scout_edge.devices set public_key = %s, enrolled_at = now() where device_id = %s",
            [bytes(32), device_id],
        )
    return str(jwt.decode(issued, options={"verify_signature": False})["jti"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    """Every command explains itself."""
    explained = scout_server(*command.split(), "--help")

    assert explained.returncode == 0
    assert len(explained.stdout.splitlines()) > 8


def test_a_code_adds_a_new_device_and_comes_with_the_command_to_type(told: Told, connection: psycopg.Connection):
    """A code adds a new device and comes with the command to type."""
    made = told("devices", "code", "pi-05", "--server", "https://sales.example.com")
    answer = json.loads(told("devices", "code", "pi-05", "--json").stdout)

    assert made.returncode == 0, made.stderr
    assert "added device pi-05" in made.stderr
    (command,) = [line.strip() for line in made.stdout.splitlines() if "scout-agent enrol" in line]
    assert command.startswith("sudo scout-agent enrol --server https://sales.example.com --code ")
    assert plain_code(command.rpartition(" ")[2])
    assert (answer["device_added"], bool(plain_code(answer["code"]))) == (False, True)
    assert connection.execute("select count(*) from scout_edge.enrolments").fetchone() == (2,)


def test_a_code_for_a_revoked_device_says_what_it_will_do(told: Told):
    """A code for a revoked device says what it will do."""
    told("devices", "add", "pi-05")
    told("devices", "revoke", "pi-05", "--yes")

    assert "lets it in again" in told("devices", "code", "pi-05").stderr


def test_revoking_asks_first_and_restoring_takes_it_back(told: Told, connection: psycopg.Connection):
    """Revoking asks first and restoring takes it back."""
    told("devices", "add", "pi-05")
    states = []
    for words in ("revoke pi-05", "revoke pi-05 --yes", "revoke pi-05 --yes", "restore pi-05", "restore pi-05"):
        done = told("devices", *words.split())
        row = connection.execute("select revoked_at is not null from scout_edge.devices").fetchone()
        states.append((done.returncode, row))

    assert states == [(1, (False,)), (0, (True,)), (0, (True,)), (0, (False,)), (0, (False,))]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("devices show pi-99", "devices list"),
        ("devices revoke pi-99 --yes", "not known"),
        ("devices restore pi-99", "not known"),
        ("devices add Pi_05", "device id"),
        ("devices code Pi_05", "device id"),
        ("tokens rotate pi-99", "not known"),
        ("tokens revoke nonsense --yes", "tokens list --all"),
        ("tokens revoke 0b5c1c6e-58a4-4d6b-9f6e-111111111111 --yes", "tokens list --all"),
    ],
)
def test_what_is_not_known_is_one_sentence_and_exit_1(told: Told, words: str, says: str):
    """What is not known is one sentence and exit 1."""
    done = told(*words.split())

    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", ["tokens rotate", "tokens rotate pi-05 --all", "tokens list --due soon", "tokens list --due 7d --all"]
)
def test_what_is_not_clear_is_wrong_usage(told: Told, words: str):
    """What is not clear is wrong usage."""
    done = told(*words.split())

    assert done.returncode == 64
    assert "Traceback" not in done.stderr


def test_devices_are_listed_and_shown_with_their_tokens_but_never_a_token(told: Told, connection: psycopg.Connection):
    """Devices are listed and shown with their tokens but never a token."""
    jti = token(connection, "pi-05", 20, with_key=True)
    token(connection, "pi-06", 20)
    told("devices", "add", "pi-07")
    listed = json.loads(told("devices", "list", "--json").stdout)
    shown = told("devices", "show", "pi-05")
    as_json = json.loads(told("devices", "show", "pi-05", "--json").stdout)

    assert [(device["device_id"], device["state"]) for device in listed] == [
        ("pi-05", "enrolled"),
        ("pi-06", "by hand"),
        ("pi-07", "no token"),
    ]
    assert [line.split()[:2] for line in told("devices", "list").stdout.splitlines()[1:]] == [
        ["pi-05", "enrolled"],
        ["pi-06", "by"],
        ["pi-07", "no"],
    ]
    assert jti in shown.stdout
    assert [one["jti"] for one in as_json["tokens"]] == [jti]
    assert "eyJ" not in shown.stdout + json.dumps(as_json)


def test_what_a_device_says_of_itself_moves_no_cursor(told: Told, connection: psycopg.Connection):
    """Whoever holds its token decides what its report holds, and operators look at it on a terminal."""
    token(connection, "pi-05", 20)
    report = json.dumps({"agent_version": "1", "version": "9\x1b[2J\x1b]0;owned\x07" + "x" * 999})
    query = "insert into scout_edge.heartbeats (device_id, heard_at, report) values ('pi-05', now(), %s)"
    connection.execute(query, [report])
    listed, shown = told("devices", "list").stdout, told("devices", "show", "pi-05").stdout

    assert "9·[2J" in listed
    assert "9·[2J" in shown
    assert not set("\x1b\x07") & set(listed + shown)
    assert max(map(len, (listed + shown).splitlines())) < 200


def test_what_is_due_is_the_newest_token_of_each_device_that_is_let_in(told: Told, connection: psycopg.Connection):
    """What ends before the device is expected; not what was replaced, nor a revoked device's."""
    token(connection, "pi-05", 3)
    token(connection, "pi-05", 25)
    soon = token(connection, "pi-06", 5, with_key=True)
    gone = token(connection, "pi-07", -2)
    token(connection, "pi-08", 1)
    told("devices", "revoke", "pi-08", "--yes")
    due = json.loads(told("tokens", "list", "--due", "7d", "--json").stdout)
    within_a_day = json.loads(told("tokens", "list", "--due", "24h", "--json").stdout)

    assert [(one["jti"], one["renews_itself"]) for one in due] == [(gone, False), (soon, True)]
    assert [one["jti"] for one in within_a_day] == [gone]
    assert "by itself" in told("tokens", "list", "--due", "7d").stdout


def test_tokens_are_listed_by_what_counts_or_all(told: Told, connection: psycopg.Connection):
    """Tokens are listed by what counts or all."""
    good, over, revoked = (token(connection, "pi-05", days) for days in (20, -1, 10))
    other = token(connection, "pi-06", 20)
    assert told("tokens", "revoke", revoked).returncode == 1
    done = told("tokens", "revoke", revoked, "--yes")
    again = told("tokens", "revoke", revoked, "--yes")

    def states(*words: str) -> dict[str, str]:
        return {one["jti"]: one["state"] for one in json.loads(told("tokens", "list", "--json", *words).stdout)}

    assert "pi-05" in done.stdout
    assert (again.returncode, "before" in again.stdout) == (0, True)
    assert states() == {good: "good", other: "good"}
    assert states("--name", "pi-05", "--all") == {good: "good", over: "expired", revoked: "revoked"}


def test_rotating_at_once_asks_before_it_locks_out_who_has_no_key(told: Told, connection: psycopg.Connection):
    """With a key it needs no asking: the device renews within a minute."""
    token(connection, "pi-05", 20, with_key=True)
    token(connection, "pi-06", 20)
    asked = told("tokens", "rotate", "--all", "--at-once")
    before = {one.subject: one.state for one in fleet.list_tokens(connection, None, datetime.now(UTC))}  # noqa: TID251
    gentle = told("tokens", "rotate", "pi-05")
    done = told("tokens", "rotate", "pi-05", "--at-once")
    after = {one.subject: one.state for one in fleet.list_tokens(connection, None, datetime.now(UTC))}  # noqa: TID251

    assert (asked.returncode, "pi-06" in asked.stdout, before) == (1, True, {"pi-05": "good", "pi-06": "good"})
    assert (gentle.returncode, done.returncode) == (0, 0), done.stderr
    assert after == {"pi-05": "outdated", "pi-06": "good"}


def test_after_a_restore_renewals_wait_until_the_revoked_are_confirmed(told: Told, connection: psycopg.Connection):
    """The list is shown, and asked about; without an answer they go on waiting."""
    told("devices", "add", "pi-05")
    told("devices", "revoke", "pi-05", "--yes")
    restored = told("after-restore", "--yes")
    held = [fleet.renewals_held_since(connection) is not None]
    asked = told("devices", "confirm-revoked")
    held.append(fleet.renewals_held_since(connection) is not None)
    done = told("devices", "confirm-revoked", "--yes")
    held.append(fleet.renewals_held_since(connection) is not None)

    assert "confirm-revoked" in restored.stdout
    assert held == [True, True, False]
    assert (asked.returncode, "pi-05" in asked.stdout, done.returncode) == (1, True, 0)
    assert "nothing waits" in told("devices", "confirm-revoked").stdout
