"""A check, what it found, and the order: what hangs on a broken check is not checked.

May be relied on: `examine` gives one finding for each check, in their order, as soon as it is known; a check that
meets trouble of the system itself is broken, and never ends the examination.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.errors import ConfigForbidden, DeliveryFault, ScoutAgentError, SpoolForbidden

AS_ROOT = "look with more rights: sudo scout-agent doctor"

Result = Literal["ok", "attention", "broken", "not checked"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found, and what to do next."""

    result: Result
    message: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question to this device, and the names of those without which it can't be asked."""

    name: str
    ask: Callable[[], Outcome]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """An outcome under its check's name."""

    check: str
    result: Result
    message: str
    next_step: str


def ok(message: str) -> Outcome:
    """Nothing to do."""
    return Outcome("ok", message)


def attention(message: str, next_step: str) -> Outcome:
    """Works, but a person should see to it."""
    return Outcome("attention", message, next_step)


def broken(message: str, next_step: str) -> Outcome:
    """Doesn't work."""
    return Outcome("broken", message, next_step)


def examine(checks: Sequence[Check]) -> Iterator[Finding]:
    """Ask one after the other."""
    unusable: set[str] = set()
    for check in checks:
        missing = [name for name in check.needs if name in unusable]
        outcome = Outcome("not checked", f"needs {missing[0]}") if missing else _asked(check)
        if outcome.result in ("broken", "not checked"):
            unusable.add(check.name)
        yield Finding(check.name, outcome.result, outcome.message, outcome.next_step)


def exit_status(findings: Sequence[Finding]) -> int:
    """0 well, 1 attention, 2 broken."""
    results = {finding.result for finding in findings}
    return 2 if "broken" in results else 1 if "attention" in results else 0


def _asked(check: Check) -> Outcome:
    try:
        return check.ask()
    except DeliveryFault as fault:
        return broken(str(fault), fault.next_step)
    except (PermissionError, SpoolForbidden, ConfigForbidden) as forbidden:
        return broken(str(forbidden), AS_ROOT)
    except (ScoutAgentError, OSError, sqlite3.Error) as error:
        return broken(f"{type(error).__name__}: {error}", "see to this first")
