"""Identity on the whole road: real processes, from a code on a slip of paper to sales in bronze."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

import jwt
import psycopg
import pytest
from house import PROGRAMS, Server, Shop, stop, tail, wait_for
from sales import sales

from server.config import now

WRONG_CLOCK = Path(__file__).with_name("wrong_clock_agent.py")
IN_BRONZE = """
    select count(*), count(distinct epoch), min(seq), max(seq), count(distinct seq)
    from scout_bronze.transactions_raw
    where device_id = 'pi-05'
"""


@pytest.fixture
def shop(server: Server, road_folder: Path) -> Iterator[Shop]:
    """A shop whose agent was enrolled with a code, and never held a token by hand."""
    made = Shop("pi-05", road_folder / "pi-05", server.base_url, "")
    enrol(server, made)
    yield made
    stop([made.process])


def enrol(server: Server, shop: Shop) -> None:
    """Type what the operator was told, the code on standard input."""
    answer = json.loads(server.command("devices", "code", shop.device, "--server", server.base_url, "--json"))
    subprocess.run(
        [PROGRAMS / "scout-agent", "enrol", "--server", server.base_url, "--code", "-", "--config", shop.config],
        input=answer["code"].encode(),
        check=True,
    )


def start_with_wrong_clock(shop: Shop) -> None:
    """Start the agent a year ago."""
    with shop.log.open("ab") as log:
        shop.process = subprocess.Popen([sys.executable, WRONG_CLOCK, shop.config], stdout=log, stderr=log)


def token_file(shop: Shop) -> Path:
    """Where its token lies."""
    return shop.config.with_name("token")


def expire(server: Server, shop: Shop) -> None:
    """Leave on the card what lies there after ninety days without power: a token that ended long ago."""
    secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
    claims = jwt.decode(token_file(shop).read_text().strip(), secret, algorithms=["HS256"])
    issued_at = int((now() - timedelta(days=120)).timestamp())
    old = claims | {"iat": issued_at, "exp": issued_at + 30 * 86_400}
    token_file(shop).write_text(jwt.encode(old, secret, algorithm="HS256"))


def in_bronze(server: Server) -> tuple[int, ...]:
    """Rows, epochs, first and last seq, and how many seqs."""
    with psycopg.connect(server.command("dsn")) as connection:
        row = connection.execute(IN_BRONZE).fetchone()
    assert row
    return tuple(row)


def sell(shop: Shop, made: Iterator[bytes], name: str) -> None:
    """Twenty sales, taken into the spool whatever the network."""
    shop.drop(name, b"[" + b",".join(islice(made, 20)) + b"]", renamed=True)
    wait_for(lambda: not list(shop.inbox.glob("*.json")), 30, lambda: f"not taken:\n{tail(shop.log)}")


def wait_until_settled(shop: Shop) -> None:
    """Every sale of the spool has its receipt."""
    wait_for(lambda: shop.unsettled() == 0, 90, lambda: f"not settled:\n{tail(shop.log)}")


def test_a_pi_that_was_off_for_ninety_days_comes_back_with_its_clock_a_year_wrong(server: Server, shop: Shop) -> None:
    """It renews by its key and delivers what it took meanwhile: same device, same epoch, numbers without a hole."""
    made = sales(40, seed=7)
    shop.start()
    sell(shop, made, "before.json")
    wait_until_settled(shop)
    shop.kill()
    server.kill()
    expire(server, shop)
    ended = token_file(shop).read_text()
    start_with_wrong_clock(shop)
    sell(shop, made, "offline.json")
    assert shop.unsettled() > 0
    server.start()
    wait_until_settled(shop)

    assert in_bronze(server) == (40, 1, 1, 40, 40)
    assert token_file(shop).read_text() != ended
    (device,) = json.loads(server.command("devices", "list", "--json"))
    assert (device["device_id"], device["state"]) == ("pi-05", "enrolled")


def test_a_secret_that_leaked_is_changed_and_every_device_renews_by_itself(server: Server, shop: Shop) -> None:
    """No token of the old one counts from the start on, and nobody drives to a shop."""
    made = sales(40, seed=8)
    shop.start()
    sell(shop, made, "before.json")
    wait_until_settled(shop)
    old = token_file(shop).read_text()
    stop([server.process])
    server.command("tokens", "change-secret", "--leaked", "--yes")
    server.start()
    sell(shop, made, "after.json")
    wait_until_settled(shop)

    secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
    assert in_bronze(server) == (40, 1, 1, 40, 40)
    assert token_file(shop).read_text() != old
    assert jwt.decode(token_file(shop).read_text().strip(), secret, algorithms=["HS256"])["sub"] == "pi-05"


def test_a_revoked_device_keeps_its_sales_and_a_lost_key_is_replaced_by_a_code(server: Server, shop: Shop) -> None:
    """The spool is there, and goes on under its numbers once the device is let in again."""
    made = sales(40, seed=9)
    shop.start()
    sell(shop, made, "before.json")
    wait_until_settled(shop)
    server.command("devices", "revoke", "pi-05", "--yes")
    (shop.spool / "device-key").unlink()
    sell(shop, made, "revoked.json")
    wait_for(
        lambda: (shop.status()["last_fault"] or {}).get("kind") == "credentials",
        60,
        lambda: f"not refused:\n{tail(shop.log)}",
    )
    assert in_bronze(server)[0] == 20
    assert shop.unsettled() > 0
    enrol(server, shop)
    wait_until_settled(shop)

    assert in_bronze(server) == (40, 1, 1, 40, 40)


def test_a_forced_rotation_is_over_by_itself(server: Server, shop: Shop) -> None:
    """The tokens that counted count no longer, and the shop sells on."""
    made = sales(20, seed=10)
    shop.start()
    wait_for(lambda: "path" in (shop.status()["daemon"] or {}), 30, lambda: f"not running:\n{tail(shop.log)}")
    old = token_file(shop).read_text()
    server.command("tokens", "rotate", "pi-05", "--at-once")
    sell(shop, made, "day.json")
    wait_until_settled(shop)

    assert token_file(shop).read_text() != old
    assert in_bronze(server)[0] == 20
