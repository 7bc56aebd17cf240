"""Both ways into bronze: by the bucket, by the endpoint, and by the other one when the first is gone."""

import socket
from collections.abc import Callable
from itertools import islice

import pytest
from house import Server, Shop, wait_until_drained
from sales import sales


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("mode", "bucket_is_gone", "way"),
    [
        ("bucket", False, "bucket"),
        ("endpoint", False, "endpoint"),
        ("auto", False, "bucket"),
        ("auto", True, "endpoint"),
    ],
)
def test_sales_arrive_once_by_the_way_that_is_open(
    server: Server, open_shop: Callable[..., Shop], mode: str, bucket_is_gone: bool, way: str
) -> None:
    """Every sale is in bronze once, and the ledger says by which way each batch came."""
    bucket_url = f"http://127.0.0.1:{_closed_port()}" if bucket_is_gone else ""
    shop = open_shop("pi-05", mode=mode, bucket_url=bucket_url)
    shop.start()
    for number in range(3):
        made = islice(sales(90, seed=11), 30 * number, 30 * number + 30)
        shop.drop(f"{number}.json", b"[" + b",".join(made) + b"]", renamed=True)
    wait_until_drained(server, [shop], 60, lambda _open: None)

    layers = server.row("layers")
    assert (layers[0], layers[2]) == (90, 90)
    assert server.row("ways") == ({"bucket": "scout-ingest", "endpoint": "endpoint"}[way],)
    assert {key for key, *_ in shop.batches()} == set(server.row("settled_names")[0])
