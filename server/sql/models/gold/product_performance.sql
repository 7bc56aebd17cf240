-- Grain: one row per sku that was sold, one for lines whose sku nobody knows, one for revenue that no item explains.
drop view if exists scout.gold_product_performance;
create view scout.gold_product_performance as
with sold as (
    select
        sku,
        count(distinct raw_id) as transactions,
        sum(qty) as quantity,
        sum(revenue) as revenue,
        count(distinct store_id) as stores,
        min(business_day) as first_day,
        max(business_day) as last_day
    from scout.silver_revenue_lines
    group by sku
)
select
    sku,
    product.product_name,
    product.product_category,
    product.brand_name,
    sold.transactions,
    sold.quantity,
    sold.revenue,
    round(sold.revenue / nullif(sold.quantity, 0), 4) as average_price,
    sold.stores,
    sold.first_day,
    sold.last_day,
    rank() over (order by sold.revenue desc) as revenue_rank
from sold
left join scout.dim_sku as product using (sku)
order by revenue_rank, sku;
comment on view scout.gold_product_performance is
    'What each product sold, best first. One row per sku, `unknown` where the till gave none, and `unallocated` for
     what items leave over or exceed: together they are the revenue of all sales. Pesos and the till''s quantity
     units; voided sales excluded.';
comment on column scout.gold_product_performance.sku is
    '`unknown` where the till gave none, `unallocated` for what items leave over or exceed.';
comment on column scout.gold_product_performance.product_name is
    'As scout.dim_sku describes the sku; null where nobody named it.';
comment on column scout.gold_product_performance.product_category is
    'As scout.dim_sku describes the sku; null where nobody named it.';
comment on column scout.gold_product_performance.brand_name is
    'As scout.dim_sku describes the sku; null where nobody named it.';
comment on column scout.gold_product_performance.transactions is 'Sales with such a line.';
comment on column scout.gold_product_performance.quantity is
    'Pieces, or kilos of what is weighed, as far as tills say; null where none does.';
comment on column scout.gold_product_performance.revenue is 'What was paid, in pesos.';
comment on column scout.gold_product_performance.average_price is
    'Pesos for a unit of quantity, to 4 places; null where no quantity is known.';
comment on column scout.gold_product_performance.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_product_performance.first_day is 'Business day of the first sale of it.';
comment on column scout.gold_product_performance.last_day is 'Business day of the last sale of it.';
comment on column scout.gold_product_performance.revenue_rank is
    '1 has the most revenue; equal revenue has an equal rank.';
