"""The alert rules of deploy/prometheus, their tests, and what their expressions use."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
PROGRAMS = ("server", "agent")

_METRIC = re.compile(r'\b(scout_\w+|up)\b(?:\{((?:[^"}]|"[^"]*")*)\})?')
_MATCHER = re.compile(r'(\w+)\s*(=~|=)\s*"([^"]*)"')
_CLAUSE = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Selector:
    """A metric as a rule asks for it: its name, and each label with the values that would do."""

    name: str
    labels: dict[str, tuple[str, ...]]


def read(name: str) -> Any:
    """Return a file of deploy/prometheus."""
    return yaml.safe_load((PROMETHEUS / name).read_text())


def alerts(program: str) -> list[dict[str, Any]]:
    """Return the rules on the metrics of a program, `server` or `agent`."""
    return [rule for group in read(f"scout-{program}.rules.yml")["groups"] for rule in group["rules"]]


def selectors(expression: str) -> Iterator[Selector]:
    """Return every metric of an expression, with its matchers; of `=~` each alternative, which may not nest."""
    for name, braces in _METRIC.findall(expression):
        matchers = _MATCHER.findall(braces)
        assert len(matchers) == braces.count('"') / 2, f"a matcher of another kind: {braces}"
        yield Selector(
            name, {label: tuple(value.split("|")) if sign == "=~" else (value,) for label, sign, value in matchers}
        )


def grouped_by(expression: str) -> set[str]:
    """Return the labels by which an expression groups or joins."""
    return {label.strip() for clause in _CLAUSE.findall(expression) for label in clause.split(",")}
