"""`audit` and `gaps` as an operator runs them."""

import json

import psycopg
import pytest
from deliveries import DEVICE, EPOCH, batch, posted
from programs import scout_server
from psycopg_pool import ConnectionPool

from server import tokens
from server.bronze import store
from server.database import transact


@pytest.fixture
def told(pool: ConnectionPool, connection: psycopg.Connection) -> psycopg.Connection:
    """A database in which five of eight records are missing, and one device is silent."""
    for device in (DEVICE, "pi-06"):
        tokens.add_device(connection, device)
    name, jsonl = batch(range(1, 4))
    transact(pool, lambda each: store(each, [posted(name, jsonl)]))
    connection.execute(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, lost, first_heard_at, last_heard_at)"
        " values (%s, %s, 8, '{}', '{[8,8]}', now(), now())",
        [DEVICE, EPOCH],
    )
    connection.execute("insert into scout_edge.heartbeats values ('pi-06', now() - interval '3 days', '{}')")
    return connection


def test_the_audit_says_what_is_missing_and_exits_1_until_nothing_is(
    told: psycopg.Connection, database_url: str
) -> None:
    """In words and as JSON, of all devices or one; gaps that are accepted keep it from being clean no more."""
    given = ["--database-url", database_url]
    first = scout_server("audit", *given)
    one = scout_server("audit", *given, "--device", DEVICE, "--json")
    listed = scout_server("gaps", "list", *given)
    accepted = [
        scout_server("gaps", "accept", DEVICE, EPOCH, run, "--why", "card broken", *given)
        for run in ("5", "1-8", "1-8")
    ]
    closed = scout_server("gaps", "list", *given)
    everything = json.loads(scout_server("gaps", "list", "--all", "--json", *given).stdout)
    alone = scout_server("audit", *given, "--device", DEVICE)
    silent = scout_server("audit", *given)
    told.execute("update scout_edge.devices set revoked_at = now() where device_id = 'pi-06'")
    last = scout_server("audit", *given, "--since", "2026-01-01")

    assert first.returncode == 1
    assert first.stdout.splitlines()[1].split() == [DEVICE, "8", "3", "0", "0", "0", "0", "1", "4"]
    assert f"{EPOCH}: missing 4-7" in first.stdout
    assert f"{EPOCH}: lost on the device 8-8" in first.stdout
    assert "silent: pi-06 was last heard" in first.stdout
    assert first.stdout.splitlines()[-1] == "not clean: missing sales: 5; silent devices: 1"
    assert (one.returncode, json.loads(one.stdout)["problems"]) == (1, ["missing sales: 5"])
    assert json.loads(one.stdout)["epochs"][0]["missing_runs"] == [[4, 7]]
    assert [line.split()[:3] for line in listed.stdout.splitlines()] == [[DEVICE, EPOCH, "4-7"], [DEVICE, EPOCH, "8-8"]]
    assert [each.returncode for each in accepted] == [0, 0, 1]
    assert ["accepted: 1 sales" in accepted[0].stdout, "accepted: 4 sales" in accepted[1].stdout] == [True, True]
    assert "nothing is missing in 1-8" in accepted[2].stderr
    assert closed.stdout == "no gaps\n"
    assert {(gap["first_seq"], gap["why"]) for gap in everything} == {(n, "card broken") for n in (4, 5, 6, 8)}
    assert (alone.returncode, silent.returncode, last.returncode) == (0, 1, 0)
    assert last.stdout.splitlines()[-1] == "clean: every sale is accounted for"


@pytest.mark.parametrize(
    "words",
    [
        ["gaps", "accept", DEVICE, EPOCH, "9-3", "--why", "x"],
        ["gaps", "accept", DEVICE, EPOCH, "all", "--why", "x"],
        ["gaps", "accept", DEVICE, EPOCH, "1-2", "--why", " "],
        ["gaps", "accept", DEVICE, EPOCH, "1-2"],
        ["audit", "--since", "yesterday"],
    ],
)
def test_wrong_usage_exits_64(words: list[str], database_url: str) -> None:
    """Status 1 is what the audit says of the sales."""
    assert scout_server(*words, "--database-url", database_url).returncode == 64


def test_status_names_silent_devices_and_alarms(told: psycopg.Connection, database_url: str) -> None:
    """Beside how far each device is."""
    told.execute("insert into scout_edge.alarms (device_id, kind, detail) values (%s, 'head_jumped', 'why')", [DEVICE])
    shown = scout_server("status", "--database-url", database_url)
    devices = json.loads(scout_server("status", "--json", "--database-url", database_url).stdout)

    assert "silent: pi-06" in shown.stdout
    assert f"alarm: {DEVICE} head_jumped: why" in shown.stdout
    assert {device["device_id"]: device["is_silent"] for device in devices} == {DEVICE: False, "pi-06": True}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("command", [("audit",), ("gaps", "list")])
def test_a_mistyped_device_is_not_called_clean(database_url: str, command: tuple[str, ...]) -> None:
    """Of a device that nobody knows nothing is missing; that must not look like good news."""
    known = scout_server(*command, "--database-url", database_url, "--device", "pi-06")
    mistyped = scout_server(*command, "--database-url", database_url, "--device", "pi-6")

    assert "is not known" not in known.stderr
    assert (mistyped.returncode, mistyped.stdout) == (1, "")
    assert "device 'pi-6' is not known here" in mistyped.stderr
