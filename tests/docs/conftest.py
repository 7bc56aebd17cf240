"""One house, and one shop in it, for all pages that leave both as they found them."""

from collections.abc import Iterator

import pytest
from counters import House, a_house
from stage import Play, a_play


@pytest.fixture(scope="session")
def shared_house() -> Iterator[House]:
    """A server that answers, for as long as the pages take."""
    with a_house() as house:
        yield house


@pytest.fixture(scope="session")
def shared_play(shared_house: House) -> Iterator[Play]:
    """A device that has delivered."""
    with a_play(shared_house) as play:
        yield play
