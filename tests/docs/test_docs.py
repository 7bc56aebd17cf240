"""What a machine can check of the docs without running anything: names, links, places, options."""

import configparser
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

import pytest
import typer
import yaml
from pages import CHECKOUT, PARSED, PLACES, RUN, SHOWN, Block, Page, headings, inline_codes, links, pages

from agent.cli import app as agent_app
from server.cli import app as server_app

LINES_MAX = 150
LONG = {"docs/gold.md"}  # made by `make gold-catalogue`
ROOTS = "agent|server|wire|tests|docs|deploy|systemd|bench|requirements"
PROGRAMS = {"scout-agent": typer.main.get_command(agent_app), "scout-server": typer.main.get_command(server_app)}


def _with_section(text: str) -> str:
    """A file of KEY=VALUE, as systemd's EnvironmentFile, has no section."""
    return text if text.startswith("[") else f"[environment]\n{text}"


PARSERS: Mapping[str, Callable[[str], object]] = {
    "toml": tomllib.loads,
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "ini": lambda text: configparser.ConfigParser(strict=False, allow_no_value=True).read_string(_with_section(text)),
}


def blocks(*languages: str) -> Iterator[Block]:
    """All blocks in these languages."""
    return (block for page in pages() for block in page.blocks if block.language in languages)


def test_every_block_says_what_it_is() -> None:
    """A block without a language is read by nobody and tested by nothing."""
    known = {*RUN, *PARSED, *SHOWN}
    every = [block for page in pages() for block in page.blocks]

    assert len(every) > 50
    assert [f"{block}: {block.language!r}" for block in every if block.language not in known] == []


def test_every_command_has_a_place_where_it_runs() -> None:
    """So that no command is left untried; and every place is used."""
    commands = list(blocks(*RUN))

    assert {block.place for block in commands} >= {*PLACES}
    assert [f"{block}: {block.place!r}" for block in commands if block.place not in PLACES] == []


@pytest.mark.parametrize("language", PARSED)
def test_every_example_of_a_file_is_well_formed(language: str) -> None:
    """What is copied from a page must at least be read by its program."""
    for block in blocks(language):
        PARSERS[language](block.text)


def test_some_files_are_shown() -> None:
    """The test above looks at something."""
    assert {block.language for block in blocks(*PARSED)} >= {"toml", "ini", "yaml"}


def test_every_make_target_in_the_docs_exists() -> None:
    """`make -n` knows it. Anything else of a checkout, or what is run by its own test, says so: `by: make TARGET`."""
    mine = [block for block in blocks(*RUN) if block.place == "checkout" or block.by]
    told = [(block, line) for block in mine for line in ([block.by] if block.by else block.text.splitlines())]
    assert len(told) > 5
    for block, command in told:
        assert command.startswith("make "), f"{block}: which target tests {command!r}?"
        done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=CHECKOUT, capture_output=True, check=False)
        assert done.returncode == 0, f"{block}: {command}: {done.stderr.decode()}"


def test_every_link_leads_somewhere() -> None:
    """To a file that is there, and to a heading that it has."""
    every = {page.name: page for page in pages()}
    followed = 0
    for page in every.values():
        for href in links(page):
            if re.match(r"[a-z]+:", href):
                continue
            path, _, anchor = unquote(href).partition("#")
            target = (CHECKOUT / page.name).parent.joinpath(path).resolve() if path else CHECKOUT / page.name
            assert target.exists(), f"{page.name} links to {href}, which is not there"
            name = str(target.relative_to(CHECKOUT))
            assert not anchor or anchor in set(headings(every[name])), f"{page.name}: {name} has no heading #{anchor}"
            followed += 1

    assert followed > 40


def test_every_file_that_a_page_names_is_there() -> None:
    """Files of the checkout, by their path; `*` stands for any."""
    named = [
        (page.name, code)
        for page in pages()
        for _, code in inline_codes(page)
        if re.fullmatch(rf"({ROOTS})/[\w./*-]*", code) and not code.startswith("docs/pi-")
    ]

    assert len(named) > 20
    assert [f"{page}: {code}" for page, code in named if not list(CHECKOUT.glob(code.rstrip("/")))] == []


def test_no_page_is_too_long_to_be_read() -> None:
    """Only the catalogue is looked things up in."""
    long = {page.name: page.text.count("\n") for page in pages() if page.name not in LONG}

    assert {name: lines for name, lines in long.items() if lines > LINES_MAX} == {}


def _split(code: str) -> list[str]:
    """Words as a shell has them; none where the code is no command."""
    try:
        return shlex.split(code)
    except ValueError:
        return []


def _commands_in(page: Page) -> Iterator[tuple[int, list[str]]]:
    """Commands of ours in a sentence or a table, with the program's name or, where it is clear, without."""
    for line, code in inline_codes(page):
        words = _split(code.removeprefix("sudo "))
        if words and words[0] in PROGRAMS:
            yield line, words


def test_every_command_in_a_sentence_is_one() -> None:
    """The program's own parser takes it: the command exists and has these options. A bare name needs no more."""
    told = [(page, line, words) for page in pages() for line, words in _commands_in(page)]

    assert len(told) > 60
    for page, line, (program, *arguments) in told:
        _parse(program, arguments, f"{page.name}:{line}")


def _parse(program: str, arguments: list[str], where: str) -> None:
    command, path = PROGRAMS[program], [program]
    while arguments and hasattr(command, "commands"):
        name, *arguments = arguments
        if name.startswith("-"):
            assert any(name in parameter.opts for parameter in command.params), f"{where}: {path} has no {name}"
            return
        assert name in command.commands, f"{where}: there is no {' '.join([*path, name])}"
        command, path = command.commands[name], [*path, name]
    if arguments:
        try:
            command.make_context(" ".join(path), arguments)
        except typer.TyperException as error:
            pytest.fail(f"{where}: {' '.join([*path, *arguments])}: {error}")
