"""An object that was damaged in the bucket: the server asks, the device sends a copy, and nobody lifts a hand.

The pieces run one by one against a given database and bucket, as they do beside a hosted project.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from house import PROGRAMS, Server, Shop, stop, tail, wait_for
from sales import sales


@pytest.fixture
def pieces(server: Server, road_folder: Path) -> dict[str, str]:
    """The environment in which `serve`, `load` and `etl` find the database and a bucket of their own."""
    secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
    (road_folder / "bucket").mkdir()
    return os.environ | {
        "DATABASE_URL": server.command("dsn"),
        "SCOUT_BUCKET": (road_folder / "bucket").as_uri(),
        "SUPABASE_JWT_SECRET": secret,
    }


@pytest.fixture
def served(pieces: dict[str, str], road_folder: Path) -> Iterator[str]:
    """`scout-server serve`, answering: its base URL."""
    log, said = road_folder / "serve.log", road_folder / "serve.out"
    with log.open("ab") as errors, said.open("ab") as out:
        process = subprocess.Popen(
            [PROGRAMS / "scout-server", "serve", "--listen", "127.0.0.1:0"], env=pieces, stdout=out, stderr=errors
        )
    wait_for(lambda: "http://" in said.read_text(), 30, lambda: f"serve did not answer:\n{tail(log)}")
    found = re.search(r"http://\S+", said.read_text())
    assert found
    yield found[0]
    stop([process])


def test_a_damaged_object_is_asked_for_again_and_arrives(
    server: Server, served: str, pieces: dict[str, str], road_folder: Path
) -> None:
    """The damaged object stays in quarantine, its copy loads, and the spool hears that it is settled.

    All the while the audit knows where each sale is: it exits with 0.
    """

    def run(*words: str) -> str:
        done = subprocess.run(
            [PROGRAMS / "scout-server", *words], env=pieces, check=True, capture_output=True, text=True
        )
        return done.stdout

    shop = Shop("pi-05", road_folder / "pi-05", served, server.token_for("pi-05"), mode="bucket")
    try:
        shop.start()
        shop.drop("sales.json", b"[" + b",".join(islice(sales(120, seed=9), 120)) + b"]", renamed=True)
        stored: Callable[[], list[Path]] = lambda: list((road_folder / "bucket").glob("*/pi-05/*.jsonl.gz"))  # noqa: E731
        wait_for(lambda: len(stored()) == 1, 30, lambda: f"nothing was uploaded:\n{tail(shop.log)}")
        (damaged,) = stored()
        damaged.chmod(0o600)
        damaged.write_bytes(damaged.read_bytes()[:-20])
        run("load")
        wait_for(lambda: "120" in run("audit"), 30, lambda: f"no head was heard:\n{tail(shop.log)}")
        (damage,) = json.loads(run("audit", "--json"))["epochs"]

        def settled() -> bool:
            run("load")
            return shop.unsettled() == 0

        wait_for(settled, 60, lambda: f"no copy arrived:\n{tail(shop.log)}")
        run("etl")
        (mended,) = json.loads(run("audit", "--json"))["epochs"]
    finally:
        stop([shop.process])

    assert [path.name.endswith("-r1.jsonl.gz") for path in sorted(stored())] == [True, False]
    assert server.row("layers")[0] == server.row("layers")[2] == 120
    assert server.row("object_quarantine") == (1,)
    assert server.row("counts")[0] == 0
    assert (damage["bronze"], damage["unsettled"], mended["bronze"], mended["unsettled"]) == (0, 120, 120, 0)
