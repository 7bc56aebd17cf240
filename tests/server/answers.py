"""What gold must say, computed by DuckDB from the tills' own texts, and what it says: rows that can be compared.

Nothing here reads the server's models: `told/*.sql` says again, in another dialect and from the meaning of each
view, what follows from the texts. A quotient is rounded in Python, exactly and half away from zero.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from landing import Landed
from psycopg import sql

TOLD = Path(__file__).parent / "told"
EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
RECORD = {
    "n": "BIGINT",
    "source_id": "VARCHAR",
    "device_id": "VARCHAR",
    "epoch": "VARCHAR",
    "seq": "BIGINT",
    "id": "VARCHAR",
    "captured_at": "TIMESTAMPTZ",
    "claimed_device_id": "VARCHAR",
    "payload": "VARCHAR",
}
RELATIONS = """
select table_schema || '.' || table_name
from information_schema.tables
where table_schema in ('scout', 'scout_gold')
order by 1
"""
GOLD = """
select nspname || '.' || relname
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where (nspname = 'scout' and relname like 'gold\\_%' and relkind in ('v', 'm'))
    or (nspname = 'scout_gold' and relkind in ('r', 'v', 'm'))
order by 1
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one relation says: its columns in order, and each row as often as it is there."""

    columns: tuple[str, ...]
    rows: Counter[tuple[Any, ...]]


Answers = Mapping[str, Answer]


def told(
    records: Iterable[Landed],
    zones: Mapping[str, str] | None = None,
    sources: Mapping[str, str] | None = None,
) -> Answers:
    """Return what every view and table must say of these records, each given once and in any order.

    `zones`: the time zone of each store that isn't in Manila. `sources`: of devices that an operator joined.
    """
    with duckdb.connect() as database, tempfile.TemporaryDirectory() as folder:
        database.execute("set timezone = 'UTC'")
        database.execute("create table zone (store_id varchar, time_zone varchar)")
        if zones:
            database.executemany("insert into zone values (?, ?)", [list(zone) for zone in zones.items()])
        path = Path(folder) / "records.jsonl"
        path.write_text("".join(_record_line(n, row, sources or {}) for n, row in enumerate(records)), encoding="utf-8")
        database.execute(
            f"create table record as from read_json('{path}', format = 'newline_delimited', columns = {RECORD},"
            " maximum_object_size = 100000000)"
        )
        for script in sorted(TOLD.glob("*.sql")):
            database.execute(script.read_text(encoding="utf-8"))
        names = [name for (name,) in database.execute(RELATIONS).fetchall()]
        return {name: _told_answer(database, name) for name in names}


def found(connection: psycopg.Connection) -> Answers:
    """Return what every view and table of gold says, the materialized one refreshed."""
    connection.execute("refresh materialized view scout.gold_basket_patterns")
    names = [name for (name,) in connection.execute(GOLD.encode()).fetchall()]
    return {name: _found_answer(connection, name) for name in names}


def assert_same(found: Answers, told: Answers) -> None:
    """Raise AssertionError that names each relation, its columns and some rows that differ."""
    assert sorted(found) == sorted(told)
    differences = [text for name in told for text in _differences(name, found[name], told[name])]
    assert not differences, "\n".join(differences)


def dull(answers: Answers) -> dict[str, list[str]]:
    """Return the columns in which no two rows of a relation differ, nulls apart: such an answer may be an accident."""
    columns = {
        name: [
            column
            for place, column in enumerate(answer.columns)
            if len({row[place] for row in answer.rows} - {None}) < 2
        ]
        for name, answer in answers.items()
    }
    return {name: same for name, same in columns.items() if same}


def _record_line(n: int, row: Landed, sources: Mapping[str, str]) -> str:
    fields = {
        "n": n,
        "source_id": sources.get(row.device_id, row.device_id),
        "device_id": row.device_id,
        "epoch": row.epoch,
        "seq": row.seq,
        "id": str(row.id) if row.epoch else None,
        "captured_at": row.captured_at.isoformat() if row.captured_at else None,
        "claimed_device_id": row.claimed_device_id,
        "payload": row.payload,
    }
    return json.dumps(fields) + "\n"


def _told_answer(database: duckdb.DuckDBPyConnection, name: str) -> Answer:
    cursor = database.execute(f"from {name}")
    columns = tuple(column[0] for column in cursor.description or ())
    return Answer(columns, Counter(tuple(map(_rounded, row)) for row in cursor.fetchall()))


def _found_answer(connection: psycopg.Connection, name: str) -> Answer:
    cursor = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(*name.split("."))))
    columns = tuple(column.name for column in cursor.description or ())
    return Answer(columns, Counter(cursor.fetchall()))


def _rounded(value: Any) -> Any:
    """Carry out a quotient that DuckDB left to us; anything else stays."""
    if not isinstance(value, dict):
        return value
    if value["part"] is None or not value["whole"]:
        return None
    quotient = EXACT.divide(Decimal(value["part"]), Decimal(value["whole"]))
    return quotient.quantize(Decimal(1).scaleb(-value["places"]), context=EXACT)


def _differences(name: str, found: Answer, told: Answer) -> Iterable[str]:
    if found.columns != told.columns:
        yield f"{name}: has the columns {found.columns}, not {told.columns}"
    elif found.rows != told.rows:
        yield f"{name} ({', '.join(told.columns)}):"
        yield from _sample("only found", found.rows - told.rows)
        yield from _sample("only told", told.rows - found.rows)


def _sample(title: str, rows: Counter[tuple[Any, ...]]) -> Sequence[str]:
    return [f"  {title} ({rows.total()} rows)"] + [f"    {tuple(map(str, row))}" for row in sorted(rows, key=str)[:5]]
