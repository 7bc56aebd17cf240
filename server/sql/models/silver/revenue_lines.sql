-- Grain: one row per item of a sale that was not voided, one per such sale without items (it is one item), and
-- one per sale whose items don't add up to it, for what they leave unallocated. Each sale's rows add up to its
-- peso_value to the cent.
-- Gold views stand on this one: add columns at its end, and remove none without a migration.
-- Written so that a condition on device_id and business_day reaches each part: a day's lines cost a day.
create or replace view scout.silver_revenue_lines as
with sale as not materialized (
    select * from scout.silver_transactions where status is distinct from 'void'
)
select
    sale.source_id,
    sale.transaction_key,
    item.line_number,
    sale.store_id,
    sale.business_day,
    coalesce(item.sku, 'unknown') as sku,
    item.product_name,
    coalesce(item.product_category, 'unknown') as product_category,
    coalesce(item.brand_name, 'unknown') as brand_name,
    item.qty,
    coalesce(item.total_price, 0) as revenue,
    sale.device_id,
    sale.sold_at,
    sale.raw_id
from sale
join scout.silver_transaction_items as item using (source_id, transaction_key)
union all
select
    sale.source_id,
    sale.transaction_key,
    1,
    sale.store_id,
    sale.business_day,
    coalesce(sale.sku, 'unknown'),
    null,
    coalesce(sale.product_category, 'unknown'),
    coalesce(sale.brand_name, 'unknown'),
    sale.units_per_transaction,
    coalesce(sale.peso_value, 0),
    sale.device_id,
    sale.sold_at,
    sale.raw_id
from sale
where not exists (
    select
    from scout.silver_transaction_items as item
    where item.source_id = sale.source_id and item.transaction_key = sale.transaction_key
)
union all
select
    source_id,
    transaction_key,
    null,
    sale.store_id,
    sale.business_day,
    'unallocated',
    null,
    'unallocated',
    'unallocated',
    null,
    coalesce(sale.peso_value, 0) - coalesce(sum(item.total_price), 0),
    sale.device_id,
    sale.sold_at,
    sale.raw_id
from sale
join scout.silver_transaction_items as item using (source_id, transaction_key)
group by
    source_id,
    transaction_key,
    sale.store_id,
    sale.business_day,
    sale.peso_value,
    sale.device_id,
    sale.sold_at,
    sale.raw_id
having coalesce(sale.peso_value, 0) <> coalesce(sum(item.total_price), 0);
comment on view scout.silver_revenue_lines is
    'Where the revenue of each sale came from, in pesos: its items, or the sale itself where it has none. What
     items leave over or exceed is a line called unallocated, with line_number null.';
comment on column scout.silver_revenue_lines.raw_id is 'Of the sale: one each, so that sales are counted by it.';
