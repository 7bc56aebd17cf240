"""The command line: exit status, what goes to stdout, and what never does."""

import json
import os
import pty
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import jwt
import psycopg
import pytest
from endpoints import SECRET
from programs import CLEAN, PROGRAM, scout_server

from server.buckets.folder import FolderBucket

COMMANDS = ["up", "serve", "dsn", "migrate", "load", "import", "etl", "tokens issue"]
GIVEN = {"SUPABASE_JWT_SECRET": SECRET}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    """Every command explains itself."""
    told = scout_server(*command.split(), "--help")

    assert told.returncode == 0
    assert "Usage:" in told.stdout
    assert len(told.stdout.splitlines()) > 8


def test_the_version_is_printed():
    """The version is printed."""
    told = scout_server("--version")

    assert (told.returncode, told.stdout.split()[0]) == (0, "scout-server")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nonsense",
        "up --nonsense",
        "up",
        "tokens issue",
        "load --date 2026-13-01",
        "load --date 2026-01-20 --sweep",
        "tokens issue --days x --name y",
    ],
)
def test_wrong_usage_exits_64(arguments: str):
    """Wrong usage exits 64."""
    told = scout_server(*arguments.split())

    assert told.returncode == 64
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("etl", "--database-url"),
        ("dsn --data /nowhere", "scout-server up"),
        ("load --data /nowhere", "is not a data directory"),
        ("import x --data /nowhere", "is not a data directory"),
        ("up --data /tmp/scout-never-made --listen nonsense", "HOST:PORT"),
        ("tokens issue --name pi-05 --database-url postgresql://x", "SUPABASE_JWT_SECRET"),
        ("load --database-url postgresql://x --bucket ftp://x", "file:///FOLDER, s3://"),
        ("load --database-url postgresql://x --bucket s3://scout", "AWS_ACCESS_KEY_ID"),
        ("load --database-url postgresql://x --bucket supabase+https://x.test/scout", "SUPABASE_SERVICE_ROLE_KEY"),
        ("migrate --database-url postgresql://scout:hidden@127.0.0.1:1/x", "database"),
    ],
)
def test_what_cant_be_done_is_one_clear_message_and_exit_1(arguments: str, words: str):
    """What can't be done is one clear message and exit 1."""
    told = scout_server(*arguments.split())

    assert told.returncode == 1
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert "hidden" not in told.stderr


def test_a_token_alone_goes_to_stdout_and_a_new_device_is_told_of(database_url: str, connection: psycopg.Connection):
    """A token alone goes to stdout and a new device is told of."""
    arguments = ["tokens", "issue", "--database-url", database_url, "--name", "pi-05"]
    first, second = scout_server(*arguments, **GIVEN), scout_server(*arguments, **GIVEN)

    claims = [jwt.decode(told.stdout.strip(), SECRET, algorithms=["HS256"]) for told in (first, second)]
    assert [claim["sub"] for claim in claims] == ["pi-05", "pi-05"]
    assert claims[0]["exp"] - claims[0]["iat"] == 30 * 86_400
    assert ("added device pi-05" in first.stderr, "added" in second.stderr) == (True, False)
    assert connection.execute("select device_id from scout_edge.devices").fetchall() == [("pi-05",)]


def test_a_token_as_json_says_what_it_is(database_url: str):
    """A token as JSON says what it is."""
    told = scout_server(
        "tokens", "issue", "--database-url", database_url, "--name", "pi-05", "--days", "7", "--json", **GIVEN
    )

    answer = json.loads(told.stdout)
    assert (answer["sub"], answer["role"], answer["device_added"]) == ("pi-05", "edge_uploader", True)
    assert answer["token"].count(".") == 2


def test_a_device_is_not_added_when_its_token_is_refused(database_url: str, connection: psycopg.Connection):
    """A device is not added when its token is refused."""
    told = scout_server("tokens", "issue", "--database-url", database_url, "--name", "pi-05", "--days", "31", **GIVEN)

    assert (told.returncode, told.stdout) == (1, "")
    assert connection.execute("select * from scout_edge.devices").fetchall() == []


def test_the_database_is_found_by_the_environment(database_url: str, tmp_path: Path):
    """The database is found by the environment."""
    found = scout_server("dsn", DATABASE_URL=database_url)
    both = scout_server("dsn", "--data", tmp_path, "--database-url", database_url)

    assert found.stdout.strip() == database_url
    assert both.returncode == 1


def test_migrating_twice_applies_once(empty_database_url: str):
    """Migrating twice applies once."""
    first = scout_server("migrate", "--database-url", empty_database_url)
    second = scout_server("migrate", "--database-url", empty_database_url)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "010_edge" in first.stdout
    assert "applied" not in second.stdout
    with psycopg.connect(empty_database_url) as connection:
        role = connection.execute("select rolcanlogin, rolinherit from pg_roles where rolname = 'edge_uploader'")
        assert role.fetchall() == [(False, False)]


def test_a_database_that_was_never_migrated_is_told_so(empty_database_url: str, tmp_path: Path) -> None:
    """A database that was never migrated is told so."""
    given = ["--database-url", empty_database_url]
    told = [
        scout_server("etl", *given),
        scout_server("load", *given, "--bucket", tmp_path.as_uri()),
        scout_server("tokens", "issue", *given, "--name", "pi-05", **GIVEN),
    ]

    assert [answer.returncode for answer in told] == [1] * 3
    assert all("scout-server migrate" in answer.stderr for answer in told)
    assert not any("Traceback" in answer.stderr for answer in told)


def test_load_and_etl_report_in_words_and_json(database_url: str, tmp_path: Path):
    """Load and ETL report in words and JSON."""
    given = ["--database-url", database_url]
    here = ["--bucket", tmp_path.as_uri()]
    told = [
        scout_server("load", *given, *here),
        scout_server("load", *given, *here, "--json"),
        scout_server("etl", *given),
        scout_server("etl", *given, "--json"),
    ]

    assert [answer.returncode for answer in told] == [0] * 4
    assert "0 found" in told[0].stdout
    assert json.loads(told[1].stdout)["found"] == 0
    assert isinstance(json.loads(told[3].stdout), list)


def on_a_terminal(*arguments: str | Path) -> tuple[str, str]:
    """Run a command whose stderr is a terminal; return what came to stdout, and what was seen there."""
    terminal, end = pty.openpty()
    with open(terminal, "rb", buffering=0) as screen:  # noqa: PTH123  # a descriptor
        told = subprocess.run(
            [*PROGRAM, *map(str, arguments)], env=CLEAN, stdout=subprocess.PIPE, stderr=end, check=True
        )
        os.close(end)
        seen = b""
        with suppress(OSError):  # how a terminal says that nobody writes any more
            while part := screen.read(1000):
                seen += part
    return told.stdout.decode(), seen.decode()


def test_load_shows_on_a_terminal_how_far_it_is_and_nothing_elsewhere(database_url: str, tmp_path: Path) -> None:
    """Whoever waits sees it; whatever reads the output does not."""
    bucket = FolderBucket(tmp_path)
    arguments = ["load", "--database-url", database_url, "--bucket", tmp_path.as_uri(), "--date", "2026-01-20"]
    for number in range(4):
        bucket.put_new(f"2026-01-20/pi-05/{number}.jsonl", b'{"n":%d}' % number)
    stdout, seen = on_a_terminal(*arguments, "--json")
    assert json.loads(stdout)["loaded"] == 4
    assert re.search(r"loading +\[#+\] +100%", seen)

    assert on_a_terminal(*arguments)[1] == ""  # nothing was left to load
    bucket.put_new("2026-01-20/pi-05/more.jsonl", b'{"n":5}')
    elsewhere = scout_server(*arguments)
    assert "1 loaded" in elsewhere.stdout
    assert elsewhere.stderr == ""


def test_status_says_how_far_each_device_is(database_url: str) -> None:
    """On a terminal and as JSON; where nobody was let in yet, how to do that."""
    nobody = scout_server("status", "--database-url", database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-05', 'pi-05')")
    shown = scout_server("status", "--database-url", database_url)
    (device,) = json.loads(scout_server("status", "--json", "--database-url", database_url).stdout)

    assert "scout-server tokens issue" in nobody.stdout
    assert shown.stdout.splitlines()[1].split() == ["pi-05", "0", "0", "0", "0s", "never"]
    assert (device["device_id"], device["rows_loaded"], device["last_error"]) == ("pi-05", 0, None)


def test_after_restore_asks_before_every_device_sends_again(database_url: str) -> None:
    """Without an answer nothing changes; with --yes the database begins a new life."""
    generations = []
    for words in [("after-restore",), ("after-restore", "--yes")]:
        done = scout_server(*words, "--database-url", database_url)
        with psycopg.connect(database_url) as connection:
            row = connection.execute("select generation from scout_edge.settings").fetchone()
        generations.append((done.returncode == 0, row))

    (refused, before), (done_well, after) = generations
    assert (refused, done_well) == (False, True)
    assert before != after
