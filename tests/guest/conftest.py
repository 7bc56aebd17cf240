"""Fixtures of the tests on an emulated arm64 machine: Debian's releases, each with the package installed by apt."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from acknowledged import Acknowledged, written_down
from cards import KERNELS, Installed, installed_card
from emulated import Guest, copied
from house import Server
from running_server import a_running_server


@pytest.fixture(scope="session", params=KERNELS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A card with the package installed, once a session and release."""
    suite = str(request.param)
    installed = installed_card(suite, tmp_path_factory.mktemp(suite))
    yield installed
    installed.card.unlink()


@pytest.fixture
def guest(installed: Installed, tmp_path: Path) -> Iterator[Guest]:
    """A machine with the package installed, on a card of its own, switched off."""
    with Guest(installed.kernel, copied(installed.card, tmp_path)) as guest:
        yield guest
    (tmp_path / "card.img").unlink()


@pytest.fixture
def server() -> Iterator[Server]:
    """`scout-server up` on this machine's loopback, answering."""
    with a_running_server() as server:
        yield server


@pytest.fixture
def acknowledged() -> Iterator[Acknowledged]:
    """What tills in the guest say was acknowledged."""
    with written_down() as acknowledged:
        yield acknowledged
