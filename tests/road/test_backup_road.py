"""A server lost with its disk: what the last backup lacks, the devices send once more."""

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
from house import PROGRAMS, Server, Shop, stop, tail, wait_for, wait_until_drained
from sales import sales
from test_restore import COUNTS, LATER


def test_backups_under_load_and_a_lost_disk_lose_no_sale_and_double_none(
    server: Server, open_shop: Callable[..., Shop], road_folder: Path
) -> None:
    """By both paths, with two backups meanwhile: every sale is in bronze once, and the audit finds none missing."""
    shops = [open_shop(f"pi-{mode}", mode=mode) for mode in ("bucket", "endpoint")]
    made = sales(400, seed=7)
    numbers = itertools.count()
    backup = road_folder / "backup"
    backup.mkdir()

    def sell() -> None:
        for shop in shops:
            lines = b"[" + b",".join(itertools.islice(made, 20)) + b"]"
            shop.drop(f"{next(numbers)}.json", lines, renamed=True)

    for shop in shops:
        shop.start()
    sell()
    wait_until_drained(server, shops, 90, lambda _open: None)
    for _ in range(2):
        running = subprocess.Popen([PROGRAMS / "scout-server", "backup", backup, "--data", server.data])
        while running.poll() is None and next(numbers) < 8:
            sell()
            wait_for(lambda: not list(shops[0].inbox.glob("*.json")), 60, lambda: tail(shops[0].log))
        assert running.wait(120) == 0
    sell()
    wait_until_drained(server, shops, 90, lambda _open: None)
    before = _counts(server)

    stop([server.process])
    shutil.rmtree(server.data)
    _restore(backup, server.data)
    server.start()
    restored = _counts(server)
    wait_for(lambda: all(shop.unsettled() > 0 for shop in shops), 90, lambda: "\n".join(tail(s.log) for s in shops))

    def nobody_waits_for_copies(_open: int) -> None:
        with psycopg.connect(server.command("dsn"), autocommit=True) as connection:
            connection.execute(LATER.encode())

    wait_until_drained(server, shops, 120, nobody_waits_for_copies)
    after = _counts(server)
    audited = server.command("audit")

    sold = sum(shop.spooled().sales for shop in shops)
    assert sold > 80
    assert before[:3] == (sold, sold, sold)
    assert 0 < restored[0] < sold
    assert after == before
    assert after[3] == sum(shop.spooled().pesos for shop in shops)
    assert audited


def _restore(backup: Path, data: Path) -> None:
    done = subprocess.run(
        [PROGRAMS / "scout-server", "restore", backup, "--data", data], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _counts(server: Server) -> tuple[int, ...]:
    with psycopg.connect(server.command("dsn")) as connection:
        row = connection.execute(COUNTS.encode()).fetchone()
    assert row is not None
    return row
