"""A runbook is found by what is seen, and says what the programs say."""

import re
from collections.abc import Iterator

import pytest
import yaml
from pages import CHECKOUT, Page, pages

from server.condition import CONDITIONS

RUNBOOKS = [page for page in pages() if re.fullmatch(r"docs/runbooks/(?!README)[a-z-]+\.md", page.name)]
ALERTS = {
    rule["alert"]: rule
    for file in (CHECKOUT / "deploy" / "prometheus").glob("*.rules.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
}
FLEET = {condition.words for condition in CONDITIONS}
PROGRAMS = "\n".join(path.read_text() for name in ("agent", "server") for path in (CHECKOUT / name).rglob("*.py"))


def _signs(page: Page) -> Iterator[tuple[str, str]]:
    """Where something is seen, and what it says, word by word."""
    table = page.text.partition("| where | says |\n|---|---|\n")[2].partition("\n\n")[0]
    for row in table.splitlines():
        where, says = row.strip("| ").split(" | ", 1)
        for sign in re.findall(r"`([^`]+)`", says):
            yield where.strip("`"), sign


def test_there_are_runbooks_for_what_happens() -> None:
    """These eight at least, and alerts to lead to them."""
    names = {page.name.removeprefix("docs/runbooks/").removesuffix(".md") for page in RUNBOOKS}

    assert names >= {
        "lost-card", "stolen-pi", "wrong-clock", "full-disk", "changed-secret", "supabase-outage", "restored-database",
        "restoring-from-usb",
    }  # fmt: skip
    assert len(ALERTS) > 20


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.name for page in RUNBOOKS])
def test_a_runbook_has_its_four_parts(page: Page) -> None:
    """How it is noticed, what is safe and what isn't, steps, and how it is over."""
    assert list(_signs(page))
    assert "**Safe:**" in page.text
    assert "**Not safe:**" in page.text
    assert re.search(r"^1\. ", page.text, re.MULTILINE)
    assert "**Over:**" in page.text


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.name for page in RUNBOOKS])
def test_the_signs_of_a_runbook_are_what_is_really_said(page: Page) -> None:
    """By an alert's name, by the fleet page's words, or in the programs themselves; `…` stands for what varies."""
    for where, sign in _signs(page):
        if where == "Prometheus":
            assert sign in ALERTS, f"there is no alert {sign}"
        elif where == "/fleet":
            assert sign in FLEET, f"/fleet never says {sign!r}"
        else:
            pieces = [piece.strip() for piece in re.split("…", sign.replace('"', "")) if len(piece.strip()) > 3]
            for piece in pieces or [sign]:
                assert _is_said(piece), f"no program says {piece!r}"


def _is_said(piece: str) -> bool:
    """Whether a program's text holds it; in JSON a name and its value are apart."""
    return all(part in PROGRAMS for part in piece.split(":", 1)) if piece.count(":") else piece in PROGRAMS


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_leads_to_a_runbook_that_knows_it(alert: str) -> None:
    """Whoever is woken by it finds it there by its name."""
    name = ALERTS[alert]["annotations"]["runbook"]

    assert alert in next(page.text for page in RUNBOOKS if page.name == name)


def test_the_list_of_runbooks_is_complete() -> None:
    """Each is reached from docs/runbooks/README.md."""
    listed = (CHECKOUT / "docs" / "runbooks" / "README.md").read_text()

    assert [page.name for page in RUNBOOKS if f"({page.name.removeprefix('docs/runbooks/')})" not in listed] == []
