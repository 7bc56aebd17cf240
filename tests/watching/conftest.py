"""A running server, for tests of what stands around it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import Server, new_folder, stop


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can reach, removed afterwards."""
    made = new_folder()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """`scout-server up`, answering; the tests of a module share it."""
    server = Server(folder)
    server.start()
    yield server
    stop([server.process])
