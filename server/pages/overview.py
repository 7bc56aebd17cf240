"""Which devices the overview shows, and in what order: what needs somebody comes first.

May be relied on: whatever stands in the address, a page is answered; what makes no sense there is passed over.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from server.condition import BAD, CONDITIONS, LEVELS, WARN, Condition
from server.standing import Standing

DEVICES_PER_PAGE = 50
SEARCH_CHARACTERS_MAX = 64
ATTENTION = "attention"
"""The filter for all that needs somebody."""

_FAR = float("inf")
ORDERS: dict[str, Callable[[Standing], Any]] = {
    "urgent": lambda one: (LEVELS.index(one.first.level), CONDITIONS.index(one.first), -(one.device.oldest_s or 0.0)),
    "device": lambda one: one.device.device_id,
    "backlog": lambda one: -(one.device.waiting_rows or 0),
    "oldest": lambda one: -(one.device.oldest_s or 0.0),
    "heard": lambda one: -(_FAR if one.device.silent_s is None else one.device.silent_s),
    "token": lambda one: _FAR if one.device.token_left_s is None else one.device.token_left_s,
    "clock": lambda one: -abs(one.device.clock_ahead_s or 0.0),
    "version": lambda one: one.device.version or "",
}
"""How devices are sorted; what is worse comes first. Then by name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an operator wants to see."""

    state: str  # a condition's name, ATTENTION, or "" for all
    search: str
    order: str
    page: int

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> "Asked":
        """Read the address."""
        state, order, page = query.get("state", ""), query.get("sort", ""), query.get("page", "")
        return cls(
            state=state if state in {ATTENTION, *(each.name for each in CONDITIONS)} else "",
            search=query.get("q", "").strip()[:SEARCH_CHARACTERS_MAX],
            order=order if order in ORDERS else "urgent",
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 7 and int(page) else 1,
        )

    def address(self, **changed: Any) -> str:
        """The address of the same with something changed, from its first page on unless that is named."""
        wanted = {"state": self.state, "q": self.search, "sort": self.order, "page": 1} | changed
        usual = {"state": "", "q": "", "sort": "urgent", "page": 1}
        query = urlencode({name: value for name, value in wanted.items() if value != usual[name]})
        return f"/fleet?{query}" if query else "/fleet"


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter, and how many devices it shows."""

    name: str
    words: str
    level: str
    devices: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """One page of the devices that were asked for."""

    shown: Sequence[Standing]
    choices: Sequence[Choice]
    found: int
    total: int
    first: int  # the place of the first one that is shown, from 1
    page: int
    pages: int


def select(standings: Sequence[Standing], asked: Asked) -> Selection:
    """Filter, sort and divide into pages. A page beyond the last is the last."""
    wanted = [one for one in standings if _has(one, asked.state) and asked.search.lower() in one.device.device_id]
    wanted.sort(key=lambda one: one.device.device_id)
    wanted.sort(key=ORDERS[asked.order])
    pages = max(-(-len(wanted) // DEVICES_PER_PAGE), 1)
    page = min(asked.page, pages)
    begin = (page - 1) * DEVICES_PER_PAGE
    return Selection(
        shown=wanted[begin : begin + DEVICES_PER_PAGE],
        choices=_choices(standings, asked.state),
        found=len(wanted),
        total=len(standings),
        first=begin + 1 if wanted else 0,
        page=page,
        pages=pages,
    )


def needs_somebody(standing: Standing) -> bool:
    """Whether a person has something to do about it."""
    return standing.first.level in (BAD, WARN)


def _has(standing: Standing, state: str) -> bool:
    if state == ATTENTION:
        return needs_somebody(standing)
    return not state or any(condition.name == state for condition in standing.conditions)


def _choices(standings: Sequence[Standing], chosen: str) -> list[Choice]:
    """All and what needs somebody, then each condition that any device has, or that is chosen."""
    counts: Counter[Condition] = Counter(condition for one in standings for condition in one.conditions)
    attention = sum(needs_somebody(one) for one in standings)
    choices = [
        Choice("", "all", "", len(standings), not chosen),
        Choice(ATTENTION, "need attention", WARN if attention else "", attention, chosen == ATTENTION),
    ]
    for condition in CONDITIONS:
        if counts[condition] or condition.name == chosen:
            is_chosen = condition.name == chosen
            choices.append(Choice(condition.name, condition.words, condition.level, counts[condition], is_chosen))
    return choices
