"""Fixtures of the tests on a real systemd."""

from collections.abc import Callable, Iterator

import pytest
from agent_kit import FakeServer, a_server
from installed import a_machine_with_the_agent, remove_agent, write_agent
from machine import Machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine that booted a real systemd; all tests share it."""
    with a_machine_with_the_agent(tmp_path_factory.mktemp("machine")) as booted:
        yield booted


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Give a server on a real socket."""
    with a_server() as running:
        yield running


@pytest.fixture
def install(machine: Machine) -> Iterator[Callable[..., None]]:
    """Give a way to put the agent's config in place; nothing of it is left afterwards."""
    yield lambda url, **options: write_agent(machine, url, **options)
    remove_agent(machine)
