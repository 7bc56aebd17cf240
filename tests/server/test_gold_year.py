"""A whole year of real sales: gold is what DuckDB makes of the same texts. Run by `make test-year`."""

import importlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import psycopg
import pytest
from answers import assert_same, found, told
from landing import Landed, land
from psycopg_pool import ConnectionPool

from server.etl import run_checks, run_etl

BASKETS, LINES, REVENUE = 155_848, 1_469_307, Decimal("4596039.58")
"""What the year is known to hold."""
LOAD_ROWS = 2000


def year() -> Iterator[Landed]:
    """Each basket as a sale, as `deploy/demo/make_sample.py` reads it, in order of time."""
    # The packages it stands on are installed by `make test-year` only.
    sample: Any = importlib.import_module("make_sample")
    tables = sample.get_data(["transactions", "products", "demographics"])
    products = sample.product_fields(tables["products"])
    households = sample.household_fields(tables["demographics"])
    lines = tables["transactions"].sort_values(["transaction_timestamp", "basket_id"], kind="stable")
    rows = (dict(zip(lines.columns, row, strict=True)) for row in lines.itertuples(index=False, name=None))
    baskets = groupby(rows, key=lambda row: row["basket_id"])
    for seq, (_, basket) in enumerate(baskets, start=1):
        sale = sample.sale(list(basket), products, households)
        at = datetime.fromisoformat(sale["timestamp"]) + timedelta(seconds=20)
        yield Landed(sample.json_text(sale), device_id=sale["device_id"], seq=seq, id=UUID(int=seq), captured_at=at)


@pytest.mark.year
@pytest.mark.timeout(3600)
def test_every_view_and_table_of_the_year(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """155,848 baskets of 1,469,307 lines, exact to the cent, whole rows."""
    records = list(year())
    for first in range(0, len(records), LOAD_ROWS):
        land(connection, records[first : first + LOAD_ROWS])
    while sum(result.read for result in run_etl(pool)):
        pass

    right = told(records)
    gold = found(connection)

    arrived = connection.execute(
        "select count(*), sum(peso_value), (select count(*) from scout.silver_transaction_items)"
        " from scout.silver_transactions"
    ).fetchone()
    assert arrived == (BASKETS, REVENUE, LINES)
    assert_same(gold, right)
    assert {0} == {result.contradictions for result in run_checks(pool)}
