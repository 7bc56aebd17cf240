"""Fixtures of the agent's tests."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_kit import FakeServer, a_server, open_spool
from daemons import Daemon
from delivery_bench import Bench, benches
from fakes import FakeClock
from office import Office

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


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock, server: FakeServer) -> Iterator[Callable[..., Bench]]:
    """Give a way to make a delivery loop with other settings than the usual."""
    with benches(tmp_path, clock, server) as made:
        yield made


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    """Return a delivery loop with the usual settings."""
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that the till knows."""
    path = tmp_path / "sales"
    path.mkdir()
    return path


@pytest.fixture
def start(config: Path) -> Iterator[Callable[[], Daemon]]:
    """Give a way to start daemons; whatever still runs is ended."""
    started: list[Daemon] = []

    def starting() -> Daemon:
        daemon = Daemon(config)
        started.append(daemon)
        return daemon

    yield starting
    for daemon in started:
        with contextlib.suppress(ProcessLookupError):
            daemon.process.kill()
        daemon.process.wait()


@pytest.fixture
def office(server: FakeServer) -> Office:
    """Give the back office behind the server."""
    made = Office()
    server.answer = made.answer
    return made
