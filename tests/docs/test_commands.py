"""Every command in the docs is run: against a real server and a real agent, in the order in which a page has them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from counters import a_house
from directions import DIRECTIONS
from likeness import differs, unlike
from pages import Block, Page, pages
from stage import Play, a_play

PLAYED = ("server", "device", "till", "analyst")
PAGES = [page for page in pages() if page.plays_in(PLAYED)]


@contextmanager
def _play_for(page: Page, request: pytest.FixtureRequest) -> Iterator[Play]:
    """The device of all, or one of its own, or with a server of its own, as the page says."""
    with ExitStack() as opened:
        if page.house == "shared":
            play = request.getfixturevalue("shared_play")
        elif page.house == "own device":
            play = opened.enter_context(a_play(request.getfixturevalue("shared_house")))
        else:
            assert page.house == "own", f"{page.name}: there is no house called {page.house!r}"
            play = opened.enter_context(a_play(opened.enter_context(a_house())))
        opened.callback(play.end)
        yield play


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_command_of_a_page_does_what_the_page_says(page: Page, request: pytest.FixtureRequest) -> None:
    """It ends as the page says, and prints what the page shows."""
    ran = 0
    with _play_for(page, request) as play:
        for step in page.steps:
            if not isinstance(step, Block):
                play.direct(step, DIRECTIONS)
            elif step.place in PLAYED and not step.by:
                printed = play.run(step)
                compare = differs if step.language == "sql" else unlike
                assert not step.shown or not (said := compare(step.shown, printed)), f"{step}: {said}"
                ran += 1

    assert ran
