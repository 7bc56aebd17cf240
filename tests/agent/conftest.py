"""Fixtures of the agent's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_kit import FakeServer, a_server, open_spool
from fakes import FakeClock

from agent.spool import Spool


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves when told to."""
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Iterator[Spool]:
    """Give an empty spool."""
    opened = open_spool(tmp_path / "spool.db", clock)
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Give a server on a real socket."""
    with a_server() as running:
        yield running
