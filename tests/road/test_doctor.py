"""The doctor asks a real server, which keeps nothing of it."""

import json
import subprocess
from collections.abc import Callable

import psycopg
from house import PROGRAMS, Server, Shop


def test_a_good_way_is_found_good_and_nothing_is_stored(server: Server, open_shop: Callable[..., Shop]) -> None:
    """Each question is refused just for what we broke; neither heartbeat, nor object, nor post is kept."""
    shop = open_shop("pi-05")
    done = subprocess.run(
        [PROGRAMS / "scout-agent", "doctor", "--json", "--config", shop.config], capture_output=True, check=False
    )
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}

    for name in ("token", "server", "server clock", "heartbeat", "bucket", "endpoint"):
        assert found[name]["result"] == "ok", found[name]
    assert found["service"]["result"] == "broken"
    with psycopg.connect(server.command("dsn")) as warehouse:
        kept = [
            warehouse.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
            for table in ("scout_edge.heartbeats", "scout_edge.heads", "scout_bronze.files", "scout_bronze.quarantine")
        ]
    assert kept == [(0,)] * 4
    assert (server.data / "bucket").is_dir()
    assert [path for path in (server.data / "bucket").rglob("*") if path.is_file()] == []
