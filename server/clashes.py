"""What stands in a database where this project's own tables, views and functions are to be.

May be relied on: `find` names everything that a file of SQL would replace, drop or stumble over, and changes
nothing. `move_aside` moves it to the schema scout_before in one transaction, with its rows, indexes and
sequences; views that stand on it go on reading it there.

The two bronze tables of the deployment that this project continues are no clash while their columns allow the
migrations 025 and 045 to adopt them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from server.database import named_queries
from server.errors import Misconfigured

BEFORE = "scout_before"

ADOPTED: dict[str, dict[str, tuple[str, ...]]] = {
    "scout.bronze_edge_raw": {
        "id": ("bigint", "integer"),
        "device_id": ("text", "character varying"),
        "captured_at": ("timestamp with time zone",),
        "src_filename": ("text", "character varying"),
        "payload": ("jsonb",),
        "ingested_at": ("timestamp with time zone",),
    },
    "scout.bronze_transactions_raw": {
        "ingest_id": ("bigint", "integer"),
        "payload": ("jsonb",),
        "source_id": ("text", "character varying"),
        "ingested_at": ("timestamp with time zone",),
    },
}
"""Tables that are taken over as they are, and the columns, with their types, that this needs."""

_MADE = re.compile(
    r"^create\s+(?:or\s+replace\s+)?(?P<kind>table|view|materialized view|type|function)\s+(?P<name>\w+\.\w+)",
    re.MULTILINE,
)
_QUERIES = named_queries("database")


@dataclass(frozen=True, slots=True)
class Clash:
    """Something that is in the way. `columns` are a function's arguments."""

    name: str  # schema and name
    kind: str
    columns: str


def made_by(text: str) -> list[tuple[str, str]]:
    """What a file of our SQL makes: kind (table, view, type …) and full name, as they stand in it."""
    return [(found["kind"], found["name"]) for found in _MADE.finditer(text)]


def find(connection: psycopg.Connection, texts: Sequence[str]) -> tuple[Clash, ...]:
    """Name what is there already of what these files make, in their order."""
    made = [pair for text in texts for pair in made_by(text)]
    relations = [name for kind, name in made if kind != "function"]
    functions = [name for kind, name in made if kind == "function"]
    rows = [
        *connection.execute(_QUERIES["relations_in_the_way"], {"names": relations}),
        *connection.execute(_QUERIES["functions_in_the_way"], {"names": functions}),
    ]
    return tuple(clash for clash in (Clash(*row) for row in rows) if not _is_adoptable(connection, clash))


def explain(clashes: Sequence[Clash]) -> str:
    """Say what is in the way and what to do, for an operator."""
    lines = [f"  {clash.kind} {clash.name} ({clash.columns})" for clash in clashes]
    return "\n".join(
        [
            "these are in this database already and were not made by scout-edge; nothing was changed:",
            *lines,
            f"Rename or remove them, or run 'scout-server migrate --move-aside', which moves them to schema {BEFORE}.",
        ]
    )


def statements(clashes: Sequence[Clash]) -> list[str]:
    """The SQL that moves these aside."""
    return [_QUERIES["make_before"] + ";", *(f"{_moving(clash)};" for clash in clashes)] if clashes else []


def move_aside(connection: psycopg.Connection, clashes: Sequence[Clash]) -> None:
    """Move what is in the way to the schema scout_before. Raises Misconfigured where that has such a name."""
    try:
        with connection.transaction():
            for statement in statements(clashes):
                connection.execute(statement.encode())
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateFunction, psycopg.errors.DuplicateObject) as error:
        raise Misconfigured(
            f"not everything can be moved aside: {error.diag.message_primary}. Rename one of them; nothing was moved."
        ) from None


def _is_adoptable(connection: psycopg.Connection, clash: Clash) -> bool:
    needed = ADOPTED.get(clash.name)
    if needed is None or clash.kind != "table":
        return False
    columns: dict[str, str] = dict(connection.execute(_QUERIES["columns_of"], {"name": clash.name}).fetchall())
    return all(columns.get(name, "") in types for name, types in needed.items())


def _moving(clash: Clash) -> str:
    arguments = f"({clash.columns})" if clash.kind == "function" else ""
    return f"alter {clash.kind} {clash.name}{arguments} set schema {BEFORE}"
