-- Grain: one row per sku that was sold, one for items whose sku nobody knows, one for revenue that no item explains.
drop view if exists scout.gold_product_performance;
create view scout.gold_product_performance as
select
    sku,
    max(product_name) as product_name,
    max(product_category) as product_category,
    max(brand_name) as brand_name,
    count(distinct (source_id, transaction_key)) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    rank() over (order by sum(revenue) desc) as revenue_rank
from scout.silver_revenue_lines
group by sku
order by revenue_rank, sku;
comment on view scout.gold_product_performance is
    'What each product sold, best first. One row per sku, `unknown` where the till gave none, and `unallocated` for
     what items leave over or exceed: together they are the revenue of all sales. Pesos and the till''s quantity
     units; voided sales excluded.';
