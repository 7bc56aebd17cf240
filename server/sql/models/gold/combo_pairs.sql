-- Grain: one row per two skus that were sold together as a combination.
drop view if exists scout.gold_combo_pairs;
create view scout.gold_combo_pairs as
with combined as (
    select distinct sale.source_id, sale.transaction_key, item.sku
    from scout.silver_sales as sale
    join scout.silver_combo_items as item using (source_id, transaction_key)
    where item.sku is not null
),
counted as (
    select sku, count(*) as transactions from combined group by sku
),
pair as (
    select a.sku as sku_a, b.sku as sku_b, count(*) as transactions
    from combined as a
    join combined as b using (source_id, transaction_key)
    where a.sku < b.sku collate "C"
    group by a.sku, b.sku
),
everything as (
    select count(distinct (source_id, transaction_key))::numeric as transactions from combined
)
select
    pair.sku_a,
    pair.sku_b,
    a.transactions as transactions_a,
    b.transactions as transactions_b,
    pair.transactions as transactions_together,
    round(100.0 * pair.transactions / a.transactions, 2) as confidence_a_to_b_percent,
    round(everything.transactions * pair.transactions / (a.transactions * b.transactions), 4) as lift
from pair
join counted as a on a.sku = pair.sku_a
join counted as b on b.sku = pair.sku_b
cross join everything
order by transactions_together desc, sku_a, sku_b;
comment on view scout.gold_combo_pairs is
    'Which products are sold together as a combination. One row per two skus of one combination, the lesser first in
     the order of bytes. Counts of sales and percent; voided sales excluded.';
comment on column scout.gold_combo_pairs.sku_a is 'The lesser of the two, in the order of bytes.';
comment on column scout.gold_combo_pairs.sku_b is 'The greater of the two.';
comment on column scout.gold_combo_pairs.transactions_a is 'Sales with sku_a in the combination.';
comment on column scout.gold_combo_pairs.transactions_b is 'Sales with sku_b in the combination.';
comment on column scout.gold_combo_pairs.transactions_together is
    'Sales with both in the combination; a sku on two lines of it counts once.';
comment on column scout.gold_combo_pairs.confidence_a_to_b_percent is 'Together, of the sales with sku_a.';
comment on column scout.gold_combo_pairs.lift is
    'How many times more often together than by chance, among all sales with a combination; to 4 places.';
