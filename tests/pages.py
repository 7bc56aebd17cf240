"""The project's pages, read as a test needs them: what is to be run, where, and what it should print.

    <!-- on: server, exit: 1 -->      where the commands that follow run, and how the last of them ends
    ```sh … ```                       the commands
    ```text … ```                     right below them: what they print, numbers and times aside
    <!-- now: the card dies -->       what happens meanwhile, played by tests/docs/stage.py

May be relied on: a page's steps come in the order in which a reader meets them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, zip_longest
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

CHECKOUT = Path(__file__).resolve().parents[1]
_PATTERNS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "systemd/README.md", "deploy/**/README.md")
_DIRECTION = re.compile(r"<!-- (on|now|house): (.+?) -->", re.DOTALL)
_MARKDOWN = MarkdownIt("commonmark").enable("table")

PLACES = ("server", "device", "till", "analyst", "checkout", "machine")
RUN = ("sh", "sql", "python")
PARSED = ("toml", "ini", "yaml", "json")
SHOWN = ("text",)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, where it runs, and what is shown below it."""

    page: str
    line: int
    language: str
    text: str
    place: str = ""
    exit_status: int = 0
    until: str = ""  # it goes on: what follows begins once it printed this
    by: str = ""  # the target of make that tests it
    shown: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Direction:
    """What happens between two blocks, in words that the stage knows."""

    page: str
    line: int
    words: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its steps, in order."""

    name: str
    text: str
    steps: tuple[Block | Direction, ...]
    house: str  # "shared"; "own device" or "own" where what it does would disturb other pages

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its fenced blocks."""
        return tuple(step for step in self.steps if isinstance(step, Block))

    def plays_in(self, places: tuple[str, ...]) -> bool:
        """Whether anything of it runs in one of these places."""
        return any(block.place in places and not block.by for block in self.blocks)


@cache
def pages() -> tuple[Page, ...]:
    """Every page of the project."""
    files = sorted({file for pattern in _PATTERNS for file in CHECKOUT.glob(pattern)})
    return tuple(page_of(str(file.relative_to(CHECKOUT)), file.read_text()) for file in files)


def page_of(name: str, text: str) -> Page:
    """Read one page."""
    houses = [words for kind, words in _DIRECTION.findall(text) if kind == "house"]
    return Page(name, text, tuple(_with_shown(list(_steps(name, text)))), (houses or ["shared"])[0])


def inline_codes(page: Page) -> Iterator[tuple[int, str]]:
    """Every piece of code within a sentence or a table, with the line where its paragraph begins."""
    for token in _MARKDOWN.parse(page.text):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map or [0])[0] + 1, child.content


def links(page: Page) -> Iterator[str]:
    """Where each link leads."""
    for token in _MARKDOWN.parse(page.text):
        for child in token.children or ():
            if child.type == "link_open":
                yield str(child.attrs["href"])


def headings(page: Page) -> Iterator[str]:
    """The anchors of its headings, as the usual readers of Markdown make them."""
    tokens = _MARKDOWN.parse(page.text)
    for opened, inside in pairwise(tokens):
        if opened.type == "heading_open":
            words = "".join(child.content for child in inside.children or ()).lower()
            yield re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _steps(name: str, text: str) -> Iterator[Block | Direction]:
    place: dict[str, str] = {}
    for token in _MARKDOWN.parse(text):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block":
            for kind, words in _DIRECTION.findall(token.content):
                if kind == "on":
                    place = _options(words)
                elif kind == "now":
                    yield Direction(name, line, words)
        elif token.type == "fence":
            yield _block(name, line, token, place)
            place = {}


def _options(words: str) -> dict[str, str]:
    place, *options = re.split(r",\s+", words)
    return {"place": place} | dict(option.split(": ", 1) for option in options)


def _block(name: str, line: int, fence: Token, place: dict[str, str]) -> Block:
    language = fence.info.strip()
    where = place.get("place", "analyst" if language == "sql" else "")
    status, until, by = int(place.get("exit", "0")), place.get("until", ""), place.get("by", "")
    return Block(name, line, language, fence.content, where, status, until, by)


def _with_shown(steps: list[Block | Direction]) -> Iterator[Block | Direction]:
    """Join a text block with what stands right above it and is run."""
    for step, after in zip_longest(steps, steps[1:]):
        if isinstance(step, Block) and isinstance(after, Block) and _is_shown_by(step, after):
            yield replace(step, shown=after.text)
        else:
            yield step


def _is_shown_by(step: Block, after: Block) -> bool:
    right_below = step.line + step.text.count("\n") + 3  # the two fences, and one empty line
    return step.language in RUN and after.language in SHOWN and after.line <= right_below
