"""Rows deleted by hand, and objects damaged in the bucket: the audit sees it, and nobody does anything about it.

Real programs throughout. What the server does by the minute is made due at once; that is all that is hurried.
"""

import json
import subprocess
from collections.abc import Callable
from itertools import islice
from typing import Any

import psycopg
import pytest
from house import PROGRAMS, Server, Shop, tail, wait_for, wait_until_drained
from sales import sales

LATER = """
    update scout_edge.heads set checked_at = checked_at - interval '10 minutes';
    update scout_bronze.repairs set next_at = next_at - interval '1 minute';
    update scout_edge.awaited
    set asked_at = asked_at - interval '2 minutes', checked_at = checked_at - interval '2 minutes'
"""

EVERYTHING = (
    "select raw_id, device_id, epoch, seq, id, payload, line from scout_bronze.transactions_raw order by raw_id",
    "select raw_id, seq, record_id, payload from scout.bronze_edge_raw order by raw_id",
    "select raw_id, seq, record_id, payload from scout.bronze_transactions_raw order by raw_id",
    "select * from scout.silver_edge_events order by raw_id",
    "select * from scout.silver_transactions order by transaction_key",
    "select * from scout.gold_daily_revenue order by 1",
)


def do(server: Server, statement: str) -> None:
    """What somebody does by hand in the database."""
    with psycopg.connect(server.command("dsn"), autocommit=True) as connection:
        connection.execute(statement.encode())


def everything(server: Server) -> list[list[tuple[Any, ...]]]:
    """Every row that counts."""
    with psycopg.connect(server.command("dsn"), autocommit=True) as connection:
        return [connection.execute(query.encode()).fetchall() for query in EVERYTHING]


def audit(server: Server) -> tuple[int, dict[str, Any]]:
    """Exit status and findings of `scout-server audit`."""
    done = subprocess.run(
        [PROGRAMS / "scout-server", "audit", "--json", "--data", server.data], capture_output=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


def wait_until_clean(server: Server, shop: Shop) -> None:
    """Only look, and let time pass."""

    def clean() -> bool:
        do(server, LATER)
        return server.row("loads_due") == (0,) and audit(server)[0] == 0 and shop.unsettled() == 0

    wait_for(clean, 120, lambda: f"not mended: {audit(server)}\n{tail(shop.log)}\nserver:\n{tail(server.log)}")


def sell(server: Server, shop: Shop, count: int = 90) -> None:
    """Sell so much in three goes, and wait until all of it is in silver and settled."""
    made = sales(count, seed=7)
    for number in range(3):
        shop.drop(f"{number}.json", b"[" + b",".join(islice(made, count // 3)) + b"]", renamed=True)
        wait_until_drained(server, [shop], 60, lambda _open: None)


@pytest.mark.parametrize(
    ("mode", "damage", "copies"),
    [("bucket", "none", False), ("bucket", "truncated", True), ("bucket", "removed", True), ("endpoint", "none", True)],
)
def test_what_vanished_from_bronze_comes_again_without_a_hand(
    server: Server, open_shop: Callable[..., Shop], mode: str, damage: str, copies: bool
) -> None:
    """From the bucket while its objects are good, else from the device; every table is as it was."""
    shop = open_shop("pi-05", mode=mode)
    shop.start()
    sell(server, shop)
    before = everything(server)
    status, found = audit(server)
    assert (status, found["problems"]) == (0, [])
    for path in (server.data / "bucket").glob("*/pi-05/*"):
        path.chmod(0o600)
        if damage == "removed":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:-20])

    do(server, "delete from scout_bronze.transactions_raw where seq between 20 and 70 and seq % 7 <> 0")
    status, found = audit(server)
    wait_until_clean(server, shop)

    assert status == 1
    assert "missing sales: 43" in found["problems"]
    assert everything(server) == before
    assert len(before[0]) == 90
    assert any(resend for *_, resend in shop.batches()) == copies
    assert server.row("counts")[0] == 0


def test_a_truncated_bronze_is_filled_again_by_both_ways(server: Server, open_shop: Callable[..., Shop]) -> None:
    """Two shops, one by each way, and nothing left of any record."""
    shops = [open_shop("pi-05", mode="bucket"), open_shop("pi-06", mode="endpoint")]
    for shop in shops:
        shop.start()
        sell(server, shop, 60)
    before = everything(server)

    do(server, "delete from scout_bronze.transactions_raw")
    status, found = audit(server)
    for shop in shops:
        wait_until_clean(server, shop)

    assert (status, "missing sales: 120" in found["problems"]) == (1, True)
    assert everything(server) == before
