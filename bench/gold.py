"""How long each view of gold takes to answer, over a warehouse of 155,000 sales and 1.5 million items.

    python bench/gold.py

The sales are made in the database, in silver: a year of them, in 500 stores and by 20,000 customers, some without time,
store or value, some voided. Each view is asked for all its rows, three times; the fastest counts. Fails when one takes
longer than SECONDS_MAX.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import psycopg
from psycopg import sql

from server.data_directory import DataDirectory
from server.database import SQL
from server.embedded import EmbeddedPostgres
from server.schema import migrate

SALES = 155_000
ITEMS_OF_A_SALE = 10
RUNS = 3
SECONDS_MAX = 2.0
FILL = """
select setseed(0.5);
insert into scout.dim_store (store_id, store_type, region, province, city, barangay)
select
    'store-' || n, (array['rural', 'transport', 'residential'])[1 + n %% 3], 'Region ' || n %% 17,
    'Province ' || n %% 80, 'City ' || n %% 160, 'Barangay ' || n %% 400
from generate_series(1, 500) as n;
insert into scout.silver_transactions (
    source_id, transaction_key, transaction_id, raw_id, device_id, version, store_id, sold_at, business_day,
    business_hour, peso_value, units_per_transaction, basket_size, sku, brand_name, product_category, customer_id,
    customer_type, gender, age_bracket, economic_class, request_mode, request_type, suggestion_offered,
    suggestion_accepted, campaign_influenced, is_tbwa_client, payment_method, duration_seconds, status
)
select
    'till', 't-' || n, 't-' || n, n, 'pi-' || store, '', nullif('store-' || store, 'store-7'), sold_at,
    (sold_at at time zone 'Asia/Manila')::date, extract(hour from sold_at at time zone 'Asia/Manila'),
    nullif(n %% 50000, 9) / 100.0, n %% 12, n %% 9, 'sku-' || n %% 5000, 'brand-' || n %% 300, 'category-' || n %% 30,
    'customer-' || customer, (array['regular', 'new', null])[1 + n %% 3], (array['male', 'female', null])[1 + n %% 3],
    (array['18-24', '25-34', '55+', null])[1 + n %% 4], (array['A', 'B', 'C', 'D', null])[1 + n %% 5],
    (array['verbal', 'pointing', null])[1 + n %% 3], (array['branded', 'point', null])[1 + n %% 3], n %% 2 = 0,
    n %% 3 = 0, n %% 5 = 0, n %% 4 = 0, (array['cash', 'gcash', 'maya', null])[1 + n %% 4], n %% 300,
    case when n %% 33 = 0 then 'void' end
from (
    select
        n,
        1 + floor(random() * 500)::integer as store,
        1 + floor(random() * 20000)::integer as customer,
        case when n %% 1000 <> 1 then timestamptz '2025-01-01' + random() * interval '365 days' end as sold_at
    from generate_series(1, %(sales)s) as n
) as made;
insert into scout.silver_transaction_items (
    source_id, transaction_key, line_number, raw_id, sku, product_name, product_category, brand_name, qty, unit_price,
    total_price, sold_at
)
select
    source_id, transaction_key, line, raw_id, 'sku-' || product, 'Product ' || product, 'category-' || product %% 30,
    'brand-' || product %% 300, 1, peso_value / 10, round(peso_value / 10, 2), sold_at
from scout.silver_transactions
cross join lateral (
    -- Some products are much more asked for than others.
    select line, floor(5000 * random() ^ 3)::integer + 0 * raw_id as product
    from generate_series(1, %(items)s) as line
) as items;
insert into scout.silver_combo_items (source_id, transaction_key, line_number, raw_id, sku, quantity)
select source_id, transaction_key, line_number, raw_id, sku, qty
from scout.silver_transaction_items
where line_number <= 2 and raw_id %% 10 = 0;
insert into scout.silver_substitutions (source_id, transaction_key, raw_id, occurred, from_sku, to_sku, reason)
select source_id, transaction_key, raw_id, raw_id %% 2 = 0, sku, 'sku-' || raw_id %% 700, 'stockout'
from scout.silver_transactions
where raw_id %% 10 = 0;
insert into scout.dim_sku (sku, product_name, product_category, brand_name)
select distinct on (sku) sku, product_name, product_category, brand_name
from scout.silver_transaction_items
order by sku;
"""


def main() -> int:
    """Fill a warehouse and ask every view; return 1 when one is too slow."""
    # Not below a folder that PostgreSQL's account can't pass through.
    with tempfile.TemporaryDirectory(prefix="scout-bench-") as folder:
        Path(folder).chmod(0o711)
        with (
            DataDirectory(Path(folder) / "data") as data,
            EmbeddedPostgres(data) as postgres,
            psycopg.connect(postgres.dsn, autocommit=True) as connection,
        ):
            migrate(connection)
            fill(connection)
            return judged({name: seconds(connection, name) for name in views(connection)})


def fill(connection: psycopg.Connection) -> None:
    """Make the sales, their items, and what the planner knows of them."""
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(FILL, {"sales": SALES, "items": ITEMS_OF_A_SALE})
    connection.execute("vacuum analyze")


def views(connection: psycopg.Connection) -> list[str]:
    """Name the views, freshly computed where they are stored."""
    names = [f"gold_{path.stem}" for path in sorted((SQL / "models" / "gold").glob("*.sql"))]
    stored = connection.execute(
        "select matviewname from pg_matviews where schemaname = 'scout' and matviewname like 'gold%'"
    )
    for (name,) in stored.fetchall():
        start = perf_counter()
        connection.execute(sql.SQL("refresh materialized view scout.{}").format(sql.Identifier(name)))
        print(f"{name} refreshed in {perf_counter() - start:.2f} s")
    return names


def seconds(connection: psycopg.Connection, view: str) -> float:
    """Ask for all rows; return how long the fastest answer took."""
    query = sql.SQL("select * from scout.{}").format(sql.Identifier(view))
    took = []
    for _ in range(RUNS):
        start = perf_counter()
        rows = len(connection.execute(query).fetchall())
        took.append(perf_counter() - start)
    print(f"{view:32} {rows:8,} rows {min(took):8.3f} s", flush=True)
    return min(took)


def judged(took: dict[str, float]) -> int:
    """Say which views are too slow."""
    slow = [view for view, took_s in took.items() if took_s > SECONDS_MAX]
    print(f"slower than {SECONDS_MAX} s: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
