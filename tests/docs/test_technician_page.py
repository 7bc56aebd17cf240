"""The technician's page is one sheet of paper."""

import re
from pathlib import Path

import pytest
from browser import a_browser
from technician_page import SOURCE, page_of


@pytest.mark.browser
def test_the_technicians_page_is_printed_on_one_sheet(tmp_path: Path) -> None:
    """A4, with all of its text, and nothing cut off at the side."""
    page = tmp_path / "technician.html"
    page.write_text(page_of(SOURCE.read_text()))
    with a_browser() as browser:
        browser.open(page.as_uri())
        printed = browser.pdf()
        text = browser.text()

    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 1
    assert [words for words in ("ALL IS WELL", "Seven commands", "Before you go") if words not in text] == []


@pytest.mark.browser
def test_a_page_that_is_too_long_is_noticed(tmp_path: Path) -> None:
    """The test above can fail."""
    page = tmp_path / "technician.html"
    page.write_text(page_of(SOURCE.read_text() * 2))
    with a_browser() as browser:
        browser.open(page.as_uri())
        printed = browser.pdf()

    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) > 1
