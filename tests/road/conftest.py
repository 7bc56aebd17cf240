"""A running server, and shops to go with it, for tests of the whole road."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import Server, Shop, new_folder, stop


@pytest.fixture
def road_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can reach, removed afterwards."""
    folder = new_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(road_folder: Path) -> Iterator[Server]:
    """`scout-server up`, answering."""
    server = Server(road_folder)
    server.start()
    yield server
    stop([server.process])


@pytest.fixture
def open_shop(road_folder: Path, server: Server) -> Iterator[Callable[..., Shop]]:
    """Make a shop with a token of its own; its agent is not started yet."""
    shops: list[Shop] = []

    def open_one(device: str, folder: str = "", **options: str) -> Shop:
        shop = Shop(device, road_folder / (folder or device), server.base_url, server.token_for(device), **options)
        shops.append(shop)
        return shop

    yield open_one
    stop(shop.process for shop in shops)
