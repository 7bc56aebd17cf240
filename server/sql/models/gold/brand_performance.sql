-- Grain: one row per brand that was sold, one for items whose brand nobody knows, one for revenue that no item
-- explains.
drop view if exists scout.gold_brand_performance;
create view scout.gold_brand_performance as
select
    brand_name,
    count(distinct sku) as skus,
    count(distinct (source_id, transaction_key)) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank
from scout.silver_revenue_lines
group by brand_name
order by revenue_rank, brand_name;
comment on view scout.gold_brand_performance is
    'What each brand sold, best first. One row per brand, `unknown` where the till gave none, and `unallocated` for
     what items leave over or exceed: together they are the revenue of all sales. Pesos, percent of it, and the
     till''s quantity units; voided sales excluded.';
