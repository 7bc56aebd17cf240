"""SQL of the agent, read from agent/sql/*.sql. No SQL stands in Python.

A file of queries has blocks headed `-- name -- what it is for`; a file of schema is a plain script.
"""

import re
import sqlite3
from importlib import resources

_HEADER = re.compile(r"^-- (\w+) -- .+$", re.MULTILINE)


def queries_of(file: str) -> dict[str, str]:
    """The queries of agent/sql/`file`.sql by name."""
    parts = _HEADER.split(_text_of(file))
    return {name: query.strip() for name, query in zip(parts[1::2], parts[2::2], strict=True)}


def script_of(file: str) -> list[str]:
    """The statements of agent/sql/`file`.sql, one by one, so that they can share a transaction."""
    statements, pending = [], ""
    for line in _text_of(file).splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    return statements


def _text_of(file: str) -> str:
    return resources.files("agent").joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")
