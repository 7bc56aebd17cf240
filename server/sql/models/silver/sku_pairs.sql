-- Grain: one row per two skus that were bought together in at least 10 sales.
-- What scout.gold_basket_patterns is filled from. Takes half a minute over a year of 155,000 sales: 18 million pairs.
-- That table stands on this view: change what it reads as you like; for other columns, drop the table by a migration.
create or replace view scout.silver_sku_pairs as
with bought as materialized (
    select distinct raw_id, sku
    from scout.silver_revenue_lines
    where sku not in ('unknown', 'unallocated')
),
-- A rarer sku is in no pair that is kept; without them there are half as many.
frequent as materialized (
    select sku, count(*) as transactions, row_number() over (order by sku collate "C") as number
    from bought
    group by sku
    having count(*) >= 10
),
-- By number: two of them are shorter than two skus, and there are millions.
basket as materialized (
    select array_agg(frequent.number order by frequent.number) as numbers
    from bought
    join frequent using (sku)
    group by bought.raw_id
),
pair as (
    select basket.numbers[place] as a, other.number as b, count(*) as transactions
    from basket
    cross join generate_subscripts(basket.numbers, 1) as place
    cross join unnest(basket.numbers[place + 1:]) as other (number)
    group by basket.numbers[place], other.number
    having count(*) >= 10
),
everything as (
    select count(*)::numeric as transactions from scout.silver_sales
)
select
    a.sku as sku_a,
    b.sku as sku_b,
    a.transactions as transactions_a,
    b.transactions as transactions_b,
    pair.transactions as transactions_together,
    round(100 * pair.transactions / everything.transactions, 4) as support_percent,
    round(100.0 * pair.transactions / a.transactions, 2) as confidence_a_to_b_percent,
    round(100.0 * pair.transactions / b.transactions, 2) as confidence_b_to_a_percent,
    round(everything.transactions * pair.transactions / (a.transactions * b.transactions), 4) as lift
from pair
join frequent as a on a.number = pair.a
join frequent as b on b.number = pair.b
cross join everything;
comment on view scout.silver_sku_pairs is
    'What scout.gold_basket_patterns will be when it is next refreshed. One row per two skus, with its columns. Slow.';
