"""What a sale was sold as a combination with, and what was taken instead of what: typed, and of the latest version."""

from itertools import permutations
from typing import Any

import psycopg
import pytest
from landing import land, record
from psycopg_pool import ConnectionPool
from test_etl import sale

from server.etl import run_checks, run_etl

COMBOS = "select transaction_key, line_number, sku, quantity from scout.silver_combo_items order by 1, 2"
SUBSTITUTIONS = (
    "select occurred, from_sku, from_brand, to_sku, to_brand, reason from scout.silver_substitutions order by raw_id"
)
REJECTIONS = "select field, reason from scout.silver_rejections order by 1"


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    """What a query returns."""
    return connection.execute(query.encode()).fetchall()


def contradictions(pool: ConnectionPool) -> set[int]:
    """How many rows contradict the checks: {0} while all is well."""
    return {result.contradictions for result in run_checks(pool)}


def test_each_line_of_a_combination_is_a_row(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """Numbered as the till listed them; a line that says no quantity has none, and nothing is refused."""
    basket = [{"sku": "b", "quantity": 2}, {"sku": 17, "quantity": "3"}, {"sku": "b"}, {"quantity": 1}]
    land(connection, [record(1, sale(1, combo_basket=basket)), record(2, sale(2)), record(3, sale(3, combo_basket=[]))])

    run_etl(pool)

    assert rows(connection, COMBOS) == [
        ("t-1", 1, "b", 2),
        ("t-1", 2, "17", 3),
        ("t-1", 3, "b", None),
        ("t-1", 4, None, 1),
    ]
    assert rows(connection, REJECTIONS) == []
    assert contradictions(pool) == {0}


def test_a_quantity_that_is_no_whole_number_from_1_is_refused_alone(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """The line stays, with its sku."""
    quantities = [0, -1, 1.5, "many", True, [1], 2**31]
    for number, quantity in enumerate(quantities, start=1):
        land(connection, [record(number, sale(number, combo_basket=[{"sku": "a", "quantity": quantity}]))])

    run_etl(pool)

    assert rows(connection, COMBOS) == [(f"t-{number}", 1, "a", None) for number in range(1, 8)]
    assert rows(connection, REJECTIONS) == [("combo_basket.quantity", "not a whole number from 1")] * 7


def test_a_combination_that_is_no_list_of_lines_is_refused(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """What can be read of it is kept."""
    baskets: list[Any] = [{"sku": "a"}, "a", 7, ["a", {"sku": "b"}], " "]
    land(connection, [record(n, sale(n, combo_basket=basket)) for n, basket in enumerate(baskets, start=1)])

    run_etl(pool)

    assert rows(connection, COMBOS) == [("t-4", 1, None, None), ("t-4", 2, "b", None)]
    assert rows(connection, "select field, reason from scout.silver_rejections order by raw_id") == [
        *[("combo_basket", "not a list")] * 3,
        ("combo_basket", "holds something that is no item"),
    ]
    assert contradictions(pool) == {0}


def event(**said: Any) -> dict[str, Any]:
    """A substitution as most tills tell of it."""
    return {"substitution_event": said}


def brands(asked: Any, final: Any) -> dict[str, Any]:
    """A substitution as the second make of till tells of it."""
    return {"substitution": {"asked_brand_id": asked, "final_brand_id": final}}


TOLD = [
    (event(occurred=False), (False, None, None, None, None, None)),
    (event(occurred="true", from_sku=1, to_sku="b", reason="Stockout"), (True, "1", None, "b", None, "stockout")),
    (event(occurred=False, from_sku="a", to_sku="b"), (False, "a", None, "b", None, None)),
    (event(from_sku="a", to_sku="b"), (True, "a", None, "b", None, None)),
    (event(from_sku="a", to_sku="a", reason="unknown"), (False, "a", None, "a", None, "unknown")),
    (event(from_sku="a"), (None, "a", None, None, None, None)),
    (brands("Puro", "Lakan"), (True, None, "Puro", None, "Lakan", None)),
    (brands("Puro", "Puro"), (False, None, "Puro", None, "Puro", None)),
    (brands(None, 5), (None, None, None, None, "5", None)),
    (event(from_sku="a", to_sku="a") | brands("Puro", "Lakan"), (True, "a", "Puro", "a", "Lakan", None)),
]


def test_a_substitution_is_typed_in_the_words_of_each_till(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Whether it occurred is the till's to say; where it doesn't, two that differ say so, and nothing is refused."""
    land(connection, [record(n, sale(n, **said)) for n, (said, _) in enumerate(TOLD, start=1)])

    run_etl(pool)

    assert rows(connection, SUBSTITUTIONS) == [typed for _, typed in TOLD]
    assert rows(connection, REJECTIONS) == []
    assert contradictions(pool) == {0}


def test_a_sale_that_says_nothing_of_a_substitution_has_no_row(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """Three of them, beside one that says something."""
    told = [{}, {"substitution_event": None}, event(occurred=None), event(occurred=False)]
    land(connection, [record(n, sale(n, **said)) for n, said in enumerate(told)])

    run_etl(pool)

    assert rows(connection, "select transaction_key from scout.silver_substitutions") == [("t-3",)]


def test_what_of_a_substitution_cannot_be_read_is_refused_field_by_field(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """An answer that can't be read is not guessed from the rest."""
    said = {"occurred": "perhaps", "from_sku": ["a"], "to_sku": "b", "reason": "weather"}
    also = {"occurred": "perhaps", "from_sku": "a", "to_sku": "b", "reason": ""}
    land(connection, [record(1, sale(1, substitution_event=said)), record(2, sale(2, substitution_event=also))])

    run_etl(pool)

    assert rows(connection, SUBSTITUTIONS) == [
        (None, None, None, "b", None, None),
        (None, "a", None, "b", None, None),
    ]
    assert rows(connection, REJECTIONS) == [
        ("from_sku", "not text, or too long"),
        ("occurred", "not true or false"),
        ("occurred", "not true or false"),
        ("reason", "not a known value"),
    ]
    assert contradictions(pool) == {0}


@pytest.mark.parametrize("order", list(permutations(range(4)))[::8])
def test_only_the_latest_version_is_told_in_any_order(
    pool: ConnectionPool, connection: psycopg.Connection, order: tuple[int, ...]
) -> None:
    """One version has a combination and a substitution, the next has others, the last of another sale has none."""
    versions = [
        record(1, sale(1, combo_basket=[{"sku": "a"}, {"sku": 0.5}], substitution_event={"occurred": False})),
        record(2, sale(1, combo_basket=[{"sku": "c"}], substitution_event={"from_sku": "a", "to_sku": "b"})),
        record(3, sale(2, combo_basket=7, substitution_event={"occurred": True})),
        record(4, sale(2)),
    ]
    for place in order:
        land(connection, [versions[place]])
        run_etl(pool)

    assert rows(connection, COMBOS) == [("t-1", 1, "c", None)]
    assert rows(connection, SUBSTITUTIONS) == [(True, "a", None, "b", None, None)]
    assert rows(connection, REJECTIONS) == [("combo_basket", "not a list")]
    assert contradictions(pool) == {0}


def test_what_was_refused_is_forgotten_when_it_is_typed_again(
    pool: ConnectionPool, connection: psycopg.Connection
) -> None:
    """A word that was learnt since is no longer refused; what still can't be read is listed once."""
    said = {"combo_basket": [{"quantity": 0}], "substitution_event": {"occurred": True, "reason": "weather"}}
    load_id = land(connection, [record(1, sale(1, **said))])
    run_etl(pool)
    before = rows(connection, REJECTIONS)

    connection.execute("insert into scout.vocabulary values ('reason', 'weather', 'unknown')")
    connection.execute(
        "insert into scout_bronze.loads (load_id, rows) overriding system value values (%s, 1)", (load_id,)
    )
    run_etl(pool)

    quantity = ("combo_basket.quantity", "not a whole number from 1")
    assert before == [quantity, ("reason", "not a known value")]
    assert rows(connection, REJECTIONS) == [quantity]
    assert rows(connection, SUBSTITUTIONS) == [(True, None, None, None, None, "unknown")]
