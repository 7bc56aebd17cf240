"""A shop without internet: by stick into the warehouse, and what happens when it is online at last."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from house import PROGRAMS, Server, Shop, tail, wait_for, wait_until_drained
from sales import sales


def _export(shop: Shop, stick: Path) -> None:
    done = subprocess.run(
        [PROGRAMS / "scout-agent", "export", stick, "--json", "--config", shop.config], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["problems"] == []
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=stick, check=True)


def _closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _sell_offline(shop: Shop, count: int) -> None:
    """Sell with an agent whose server's address leads nowhere, until all is in the spool."""
    online = shop.config.read_text()
    address = next(line for line in online.splitlines() if line.startswith("base_url"))
    shop.config.write_text(online.replace(address, f'base_url = "{_closed_address()}"'))
    shop.start()
    for number, sale in enumerate(islice(sales(count, seed=21), count)):
        shop.drop(f"{number}.json", sale, renamed=True)
    wait_for(lambda: not any(shop.inbox.rglob("*.json")), 60, lambda: f"not taken:\n{tail(shop.log)}")
    shop.config.write_text(online)


def _uploads(shop: Shop) -> int:
    return shop.log.read_text().count("batch_uploaded")


def _assert_once(server: Server, count: int) -> None:
    layers = server.row("layers")
    gaps, forks, _duplicates, quarantined, _lag_s = server.row("counts")
    assert (layers[0], layers[2]) == (count, count)
    assert (gaps, forks, quarantined) == (0, 0, 0)


def test_what_came_by_stick_is_settled_by_the_first_call_home_and_nothing_is_uploaded(
    server: Server, open_shop: Callable[..., Shop], road_folder: Path
) -> None:
    """Exported beside the running daemon, imported, and only then is the shop online."""
    shop = open_shop("pi-05")
    _sell_offline(shop, 60)
    stick = road_folder / "stick"
    _export(shop, stick)
    shop.kill()
    imported = json.loads(server.command("import", str(stick), "--json"))
    again = json.loads(server.command("import", str(stick), "--json"))
    assert (imported["accepted"], imported["duplicates"], imported["problems"]) == (60, 0, [])
    assert (again["accepted"], again["loaded_before"]) == (0, imported["objects"])
    assert shop.unsettled() > 0

    shop.start()
    wait_until_drained(server, [shop], 60, lambda _open: None)

    assert shop.batches()
    assert {state for _, _, state, _ in shop.batches()} == {"settled"}
    assert _uploads(shop) == 0
    _assert_once(server, 60)


def test_a_stick_that_arrives_after_the_shop_is_online_doubles_nothing(
    server: Server, open_shop: Callable[..., Shop], road_folder: Path
) -> None:
    """The agent, not running when it was exported, uploads everything; the stick brings only duplicates."""
    shop = open_shop("pi-05")
    _sell_offline(shop, 60)
    shop.kill()
    stick = road_folder / "stick"
    _export(shop, stick)
    shop.start()
    wait_until_drained(server, [shop], 60, lambda _open: None)
    assert _uploads(shop) > 0
    late = json.loads(server.command("import", str(stick), "--json"))

    assert (late["rows"], late["accepted"], late["problems"]) == (60, 0, [])
    _assert_once(server, 60)


def test_a_stick_from_somewhere_else_is_refused_in_plain_words(server: Server, road_folder: Path) -> None:
    """A device that this server doesn't know; exit status 1."""
    place = road_folder / "stick" / "2026-01-20" / "pi-77"
    place.mkdir(parents=True)
    (place / "data.jsonl").write_bytes(b'{"transaction_id":"1"}\n')
    told = subprocess.run(
        [PROGRAMS / "scout-server", "import", place.parent.parent, "--data", server.data],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )

    assert told.returncode == 1
    assert "device pi-77 is unknown" in told.stderr
