"""More than the server can take: it refuses, loses nothing that it acknowledged, and recovers at once.

The load comes from a process of its own, over real sockets, to `scout-server up`. `make bench-overload` offers twice
what the server can take for a minute, `make test` for some seconds.
"""

import gzip
import os
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import process_time
from urllib.parse import urlsplit

import load
import psycopg
import pytest
from endpoints import DEADLINE_S, bearer
from programs import Up, data_folder, up

from server.config import LIMITS, MEBIBYTE
from server.embedded import dsn_of

OVERLOAD_S = float(os.environ.get("SCOUT_TEST_OVERLOAD_S", "5"))
DEVICES = 60  # so many that none of them sends faster than it may
URL = "/ingest-transaction"
SALE = b'{"store_id":"102","peso_value":150.50}'
GIBIBYTE = 1024 * MEBIBYTE


@pytest.fixture
def server() -> Iterator[Up]:
    """Start `scout-server up`."""
    with data_folder() as data, up(data) as running:
        yield running


@pytest.fixture
def tokens_file(server: Up, tmp_path: Path) -> Path:
    """Make the devices that send."""
    secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
    load.devices(dsn_of(server.data), secret, DEVICES, tmp_path / "tokens")
    return tmp_path / "tokens"


def in_bronze(server: Up, name: str) -> list[str]:
    """The transaction_ids of one load in bronze, as often as they are there."""
    query = "select payload::jsonb ->> 'transaction_id' from scout_bronze.transactions_raw"
    with psycopg.connect(dsn_of(server.data)) as connection:
        return [found for (found,) in connection.execute(query) if (found or "").startswith(f"{name}-")]


@pytest.mark.timeout(300 + 2 * OVERLOAD_S)
def test_twice_what_it_can_take_is_refused_in_part_and_nothing_acknowledged_is_lost(
    server: Up, tokens_file: Path
) -> None:
    """Twice what it can take is refused in part, nothing acknowledged is lost, and one post later all is well."""
    closed = load.generate(server.base_url, tokens_file, rate=0, seconds=3, connections=64, name="calm")
    capacity_per_s = len(closed.of(200)) / 3
    assert {answer.status for answer in closed.answers} == {200}
    load.forget_peak(server.process.pid)
    calm_bytes = load.peak_bytes(server.process.pid)

    offered = load.generate(
        server.base_url, tokens_file, rate=2 * capacity_per_s, seconds=OVERLOAD_S, connections=600, name="flood"
    )
    with server.client() as client:
        after = client.post(URL, content=SALE, headers=bearer(tokens_file.read_text().split()[0]))
        health = client.get("/healthz")

    accepted, refused = offered.of(200), offered.of(429, 503)
    print(
        f"\nit takes {capacity_per_s:.0f} sales/s; offered {2 * capacity_per_s:.0f}/s for {OVERLOAD_S:.0f} s: "
        f"{len(accepted) / OVERLOAD_S:.0f}/s accepted, {len(refused) / OVERLOAD_S:.0f}/s refused, p50 "
        f"{offered.percentile_ms(50):.0f} ms, p99 {offered.percentile_ms(99):.0f} ms, "
        f"{(load.peak_bytes(server.process.pid) - calm_bytes) / MEBIBYTE:.0f} MiB more than before"
    )
    assert accepted
    assert refused
    assert {answer.status for answer in offered.answers} <= {200, 429, 503}
    assert all(answer.wait_s is not None and answer.wait_s >= 1 for answer in refused)
    assert after.status_code == health.status_code == 200
    assert load.peak_bytes(server.process.pid) - calm_bytes < 64 * MEBIBYTE
    landed = in_bronze(server, "flood")
    assert len(landed) == len(set(landed))
    assert {f"flood-{answer.number}" for answer in accepted} == set(landed)


def test_clients_that_do_not_wait_keep_nobody_else_out(server: Up, tokens_file: Path) -> None:
    """From clients that post again at once when refused it takes about as much as from as many as it can serve.

    Answered as fast as they ask, they would keep it so busy with refusing that it takes almost nothing.
    """
    served = load.generate(server.base_url, tokens_file, rate=0, seconds=3, connections=64, name="served")
    rude = load.generate(server.base_url, tokens_file, rate=0, seconds=3, connections=400, name="rude")

    assert served.of(200)
    assert rude.of(503)
    assert {answer.status for answer in rude.answers} == {200, 503}
    assert len(rude.of(200)) > len(served.of(200)) / 2
    landed = in_bronze(server, "rude")
    assert sorted(landed) == sorted(f"rude-{answer.number}" for answer in rude.of(200))


def test_more_connections_than_it_keeps_are_told_when_to_come_back(server: Up) -> None:
    """More connections than it keeps are told when to come back, and health is told even then."""
    address = urlsplit(server.base_url)
    headers = bearer(server.token())
    with ExitStack() as idle, server.client() as client:
        # Kept open by a first answer, as a client keeps it.
        for _ in range(LIMITS.connections_max + 1):
            line = idle.enter_context(socket.create_connection((address.hostname, address.port), DEADLINE_S))
        line.sendall(b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n")
        refused = line.recv(4096).lower()
        assert refused.startswith(b"http/1.1 503 ")
        assert b"\r\nretry-after: " in refused
        assert b"\r\nconnection: close" in refused
        assert client.get("/healthz").status_code == 200
    with server.client() as client:
        assert client.post(URL, content=SALE, headers=headers).status_code == 200


def bomb(unit: bytes, size: int) -> bytes:
    """A gzip of `size` bytes that repeat, made without holding them."""
    packer = zlib.compressobj(9, wbits=31)
    block = unit * (MEBIBYTE // len(unit))
    packed = [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*packed, packer.flush()])


def expanding_s(packed: bytes) -> float:
    """The time on a processor that expanding all of it takes."""
    began_s, expander = process_time(), zlib.decompressobj(wbits=31)
    while not expander.eof:
        expander.decompress(packed, MEBIBYTE)
        packed = expander.unconsumed_tail
    return process_time() - began_s


def test_a_bomb_costs_neither_memory_nor_time(server: Up) -> None:
    """A megabyte that expands to a gigabyte is refused for a fraction of what expanding it would cost."""
    packed = bomb(b" ", GIBIBYTE)
    assert MEBIBYTE / 2 < len(packed) < 2 * MEBIBYTE
    headers = bearer(server.token())
    forms = ["application/jsonl", "application/json"] * 4
    with server.client() as client:
        client.post(URL, content=SALE, headers=headers).raise_for_status()
        load.forget_peak(server.process.pid)
        before_bytes, before_s = load.peak_bytes(server.process.pid), load.processor_s(server.process.pid)

        with ThreadPoolExecutor(len(forms)) as threads:
            posts = [
                threads.submit(client.post, URL, content=packed, headers=headers | {"Content-Type": form})
                for form in forms
            ]
            healths = [client.get("/healthz") for _ in range(5)]
            answers = [post.result(DEADLINE_S) for post in posts]

        took_s = load.processor_s(server.process.pid) - before_s
        took_bytes = load.peak_bytes(server.process.pid) - before_bytes
        assert client.post(URL, content=SALE, headers=headers).status_code == 200
    assert [answer.status_code for answer in answers] == [400] * len(forms)
    assert all("expands to more than" in answer.json()["message"] for answer in answers)
    assert [health.status_code for health in healths] == [200] * 5
    print(f"\n{len(forms)} bombs at once: {took_s:.1f} s and {took_bytes / MEBIBYTE:.0f} MiB at most")
    assert took_bytes < LIMITS.reads_at_once_max * 2 * LIMITS.expanded_bytes_max
    assert took_s < len(forms) * expanding_s(packed) / 2


@pytest.mark.parametrize(
    ("unit", "end", "form"),
    [(b"{}\n", b"", "application/jsonl"), (b"{}\n", b"", "application/json"), (b"1,", b"1]", "application/json")],
)
def test_a_bomb_of_lines_costs_no_memory(server: Up, unit: bytes, end: bytes, form: str) -> None:
    """What expands within the limits but to millions of lines is refused before any is made of it."""
    size = (LIMITS.expanded_bytes_max if form == "application/jsonl" else LIMITS.document_bytes_max) - MEBIBYTE
    start = b"[" if end else b""
    packed = gzip.compress(start) + bomb(unit, size) + gzip.compress(end)
    headers = bearer(server.token(), Content_Type=form, Content_Encoding="gzip")
    with server.client() as client:
        client.post(URL, content=gzip.compress(SALE), headers=headers).raise_for_status()
        load.forget_peak(server.process.pid)
        before_bytes = load.peak_bytes(server.process.pid)

        answer = client.post(URL, content=packed, headers=headers)

    assert answer.status_code == 413
    assert "in parts" in answer.json()["message"]
    assert load.peak_bytes(server.process.pid) - before_bytes < 3 * LIMITS.expanded_bytes_max
