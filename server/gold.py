"""Gold: refreshes the one view that is kept rather than computed when asked, and tells what analysts may read.

May be relied on:
- A refresh never holds up the ETL, nor whoever reads: until it has committed, they see what was there before.
- However many processes ask for one, they go one at a time, and one a day is enough (the database remembers).
- The catalogue is the database's own comments, so it says what is there and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from server.database import named_queries

REFRESH_AFTER = timedelta(days=1)
"""What is bought together changes over weeks; counting it anew takes a core for half a minute per 18 million pairs."""

_GRAIN = re.compile(r"(?:^|(?<=\. ))One row.*?\.(?= |$)")
_QUERIES = named_queries("gold")

_OPENING = """\
# What analysts read

Made from the comments in the database, which `scout-server gold list` shows too: `make gold-catalogue` writes it anew.

A *sale* is a transaction in its latest version that was not voided; what counts otherwise says so. *Revenue* is what
was paid, in Philippine pesos. A *day* is one of the calendar where the store is, a *week* begins on Monday. What no
till named is called `unknown`; a time that nobody knows is null. No view depends on when it is asked.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh of the basket patterns did."""

    rows: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type as PostgreSQL names it, and its meaning with units; '' where the name says it."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Relation:
    """One view or table. `meaning` is its whole comment, `grain` the sentence in it that says what a row is."""

    schema: str
    name: str
    kind: str
    grain: str
    meaning: str
    columns: tuple[Column, ...]


def refresh(pool: ConnectionPool, older_than: timedelta | None = None) -> Refreshed | None:
    """Fill the basket patterns anew, after whoever is at it.

    With `older_than`, return None where the last refresh is younger, or nothing came since: then it costs nothing.
    """
    with pool.connection() as connection, connection.cursor(row_factory=class_row(Refreshed)) as cursor:
        done = cursor.execute(_QUERIES["refresh_basket_patterns"], {"older_than": older_than}).fetchone()
    if done:
        log.info("basket_patterns_refreshed", rows=done.rows, took_s=round(done.took_s, 1))
    return done


def catalogue(connection: psycopg.Connection) -> list[Relation]:
    """What analysts may read, by schema and name: gold and the dimensions."""
    return [_relation(*row) for row in connection.execute(_QUERIES["catalogue"])]


def markdown(relations: Sequence[Relation]) -> str:
    """Write the catalogue as a page."""
    return "\n".join(_page(relations)) + "\n"


def _relation(schema: str, name: str, kind: str, comment: str, columns: list[Any]) -> Relation:
    told = " ".join(comment.split())
    grain = _GRAIN.search(told)
    described = tuple(Column(column, type_, " ".join(said.split())) for column, type_, said in columns)
    return Relation(schema, name, kind, grain[0] if grain else "", told, described)


def _page(relations: Sequence[Relation]) -> Iterator[str]:
    yield _OPENING
    yield "| | |\n|---|---|"
    for relation in relations:
        full_name = f"{relation.schema}.{relation.name}"
        yield f"| [{full_name}](#{full_name.replace('.', '')}) | {relation.grain} |"
    for relation in relations:
        yield f"\n## {relation.schema}.{relation.name}\n"
        yield f"{relation.kind.capitalize()}. {relation.meaning}\n"
        yield "| column | type | |\n|---|---|---|"
        yield from (f"| `{column.name}` | {column.type} | {column.meaning} |" for column in relation.columns)
