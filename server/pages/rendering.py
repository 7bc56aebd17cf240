"""Makes HTML of values: every value is escaped, and what others wrote is made plain before.

May be relied on: no page loads or says anything of another host, and the browser is told to allow none; a page is kept
in no cache. What devices report may be any characters: those that can't be seen, or turn the direction of the text
around, are shown as dots.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

FOLDER = Path(__file__).parent
STATIC_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: under it a browser calls the origin of its own forms `null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOTHING = "\N{EN DASH}"
_LIVE = "live"
"""The block of a page that changes by itself."""


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it shows."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """Where to look next, after something was done."""

    to: str


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of ours that pages stand on; `mark` changes with its content."""

    content: bytes
    content_type: str
    mark: str


def render(page: Page) -> Response:
    """The whole page."""
    text = _environment().get_template(page.template).render(page.values)
    return Response(text, page.status, {**HEADERS, **page.headers}, media_type="text/html")


def render_live(page: Page, known_mark: str | None) -> Response:
    """The part that changes by itself; 304 without it where the browser has it already."""
    template = _environment().get_template(page.template)
    body = "".join(template.blocks[_LIVE](template.new_context(dict(page.values)))).encode()
    mark = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if known_mark == mark:
        return Response(status_code=304, headers={**HEADERS, "ETag": mark})
    return Response(body, page.status, {**HEADERS, "ETag": mark}, media_type="text/html")


@cache
def assets() -> dict[str, Asset]:
    """The files that pages stand on, by name."""
    found = {}
    for path in sorted((FOLDER / "static").iterdir()):
        content = path.read_bytes()
        mark = hashlib.sha256(content).hexdigest()[:12]
        found[path.name] = Asset(content, STATIC_TYPES[path.suffix], mark)
    return found


def plain(text: str | None) -> str:
    """What others wrote, without characters that can't be seen or that move others; a dash for nothing."""
    return "".join(character if character.isprintable() else "·" for character in text) if text else NOTHING


def span(seconds: float | None) -> str:
    """A span of time in its two largest units, such as `2 d 4 h`; a dash for none."""
    if seconds is None:
        return NOTHING
    minutes = int(max(seconds, 0.0)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days >= 100:
        return f"{days:,} d"
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min" if minutes else "< 1 min"


def brief(seconds: float | None) -> str:
    """A short span of time, such as an answer's: in milliseconds up to a second; a dash for none."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else span(seconds)


def below(seconds: int | None) -> str:
    """A bound that a span of time stays below, such as `< 5 s`; a dash for none."""
    if seconds is None:
        return NOTHING
    return f"< {seconds} s" if seconds < 60 else f"< {span(seconds)}"


def ahead(seconds: float | None) -> str:
    """How a clock differs from ours."""
    if seconds is None:
        return NOTHING
    if abs(seconds) < 2:
        return "right"
    size = f"{abs(seconds):.0f} s" if abs(seconds) < 120 else span(abs(seconds))
    return f"{size} {'fast' if seconds > 0 else 'slow'}"


def count(value: float | None) -> str:
    """A whole number with its thousands apart; a dash for none."""
    return NOTHING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A whole number in little room, such as `12.3 M`; a dash for none."""
    if value is None:
        return NOTHING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return count(value)


def size(value: float | None) -> str:
    """Bytes in the unit that people use; a dash for none."""
    if value is None:
        return NOTHING
    for bytes_in, unit in ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if value >= bytes_in:
            return f"{value / bytes_in:.1f} {unit}"
    return f"{value:.0f} B"


def percent(share: float | None) -> str:
    """A share as per cent; 100 only where it is all. A dash for none."""
    if share is None:
        return NOTHING
    return "100 %" if share >= 1 else f"{min(share * 100, 99.9):.1f} %"


def instant(at: datetime | float | None) -> str:
    """A time, in UTC; a dash for none."""
    if at is None:
        return NOTHING
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (plain, span, brief, below, ahead, count, short, size, percent, instant)
    environment.filters |= {each.__name__: each for each in filters}
    environment.globals["assets"] = {name: f"/fleet/static/{name}?{asset.mark}" for name, asset in assets().items()}
    return environment
