-- Grain: one row per store and sku that it sold, with `unknown` and `unallocated` as in gold_product_performance.
drop view if exists scout.gold_sku_performance;
create view scout.gold_sku_performance as
with sold as (
    select
        coalesce(store_id, 'unknown') as store_id,
        sku,
        count(distinct raw_id) as transactions,
        sum(qty) as quantity,
        sum(revenue) as revenue
    from scout.silver_revenue_lines
    group by coalesce(store_id, 'unknown'), sku
)
select
    sold.store_id,
    sku,
    product.product_name,
    sold.transactions,
    sold.quantity,
    sold.revenue,
    round(100 * sold.revenue / nullif(sum(sold.revenue) over of_store, 0), 2) as store_revenue_percent,
    rank() over (of_store order by sold.revenue desc) as store_rank
from sold
left join scout.dim_sku as product using (sku)
window of_store as (partition by sold.store_id)
order by store_id, store_rank, sku;
comment on view scout.gold_sku_performance is
    'What each store sells of each product, its best first. One row per store and sku, `unknown` where a sale or
     line names none, and `unallocated` for what items leave over or exceed. Pesos, percent and the till''s quantity
     units; voided sales excluded.';
comment on column scout.gold_sku_performance.store_id is '`unknown` for sales that name none.';
comment on column scout.gold_sku_performance.sku is
    '`unknown` where the till gave none, `unallocated` for what items leave over or exceed.';
comment on column scout.gold_sku_performance.product_name is
    'As scout.dim_sku describes the sku; null where nobody named it.';
comment on column scout.gold_sku_performance.transactions is 'Sales with such a line.';
comment on column scout.gold_sku_performance.quantity is
    'Pieces, or kilos of what is weighed, as far as tills say; null where none does.';
comment on column scout.gold_sku_performance.revenue is 'What was paid, in pesos.';
comment on column scout.gold_sku_performance.store_revenue_percent is 'Of the store''s revenue.';
comment on column scout.gold_sku_performance.store_rank is
    '1 has the most revenue in the store; equal revenue has an equal rank.';
