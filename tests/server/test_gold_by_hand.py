"""Twenty sales whose every answer was worked out with pencil and paper: `by_hand/README.md` lists them."""

import csv
import json
import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from answers import Answer, Answers, assert_same, found, told
from landing import Landed, foreign, json_text, land, record
from psycopg_pool import ConnectionPool

from server.etl import run_checks, run_etl

BY_HAND = Path(__file__).parent / "by_hand"


def records() -> list[Landed]:
    """What the tills said, as it reached us."""
    lines = (BY_HAND / "sales.jsonl").read_text(encoding="utf-8").splitlines()
    return [_record(seq, json.loads(line, parse_float=Decimal)) for seq, line in enumerate(lines, start=1)]


def _record(seq: int, said: dict[str, Any]) -> Landed:
    text, device_id = json_text(said["payload"]), said["device_id"]
    if said["captured_at"] is None:
        return foreign(text, device_id=device_id)
    return record(seq, text, device_id=device_id, captured_at=datetime.fromisoformat(said["captured_at"]))


def written() -> Answers:
    """The answers written by hand, a CSV for each view and table."""
    return {path.stem: _answer(path) for path in sorted(BY_HAND.glob("*.csv"))}


def _answer(path: Path) -> Answer:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return Answer(tuple(header), Counter(tuple(map(_shortened, row)) for row in rows))


def as_text(answers: Answers) -> Answers:
    """Return the answers as a person would write them, by names without their schema."""
    return {
        name.partition(".")[2]: Answer(
            answer.columns, Counter(tuple(map(_text, row)) for row in answer.rows.elements())
        )
        for name, answer in answers.items()
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return _shortened(str(value))


def _shortened(text: str) -> str:
    """Return a number without the zeros that say nothing, other text as it stands."""
    return text.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", text) else text


def test_twenty_sales_are_twenty() -> None:
    """Two of them in two versions."""
    assert len(records()) == 22
    assert len({(row.device_id, json.loads(row.payload)["transaction_id"]) for row in records()}) == 20


@pytest.mark.parametrize("name", sorted(path.stem for path in BY_HAND.glob("*.csv")))
def test_duckdb_agrees_with_the_answer_written_by_hand(name: str, computed: Answers) -> None:
    """The computation that judges gold on sets no hand could do is itself judged here."""
    assert computed[name] == written()[name]


@pytest.fixture(scope="module")
def computed() -> Answers:
    """What DuckDB says of the twenty sales."""
    return as_text(told(records()))


def test_gold_agrees_with_every_answer_written_by_hand(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Every view and table, whole rows, to the cent."""
    land(connection, records())
    run_etl(pool)

    assert_same(as_text(found(connection)), written())
    assert {0} == {result.contradictions for result in run_checks(pool)}
