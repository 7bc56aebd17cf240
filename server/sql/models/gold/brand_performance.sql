-- Grain: one row per brand that was sold, one for lines whose brand nobody knows, one for revenue that no item
-- explains.
drop view if exists scout.gold_brand_performance;
create view scout.gold_brand_performance as
select
    brand_name,
    count(distinct sku) as skus,
    count(distinct raw_id) as transactions,
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
comment on column scout.gold_brand_performance.brand_name is
    'As the till gave it with the line; `unknown`, or `unallocated` for what items leave over or exceed.';
comment on column scout.gold_brand_performance.skus is 'Different skus; what names none counts as one.';
comment on column scout.gold_brand_performance.transactions is 'Sales with such a line.';
comment on column scout.gold_brand_performance.quantity is
    'Pieces, or kilos of what is weighed, as far as tills say; null where none does.';
comment on column scout.gold_brand_performance.revenue is 'What was paid, in pesos.';
comment on column scout.gold_brand_performance.revenue_percent is 'Of the revenue of all sales.';
comment on column scout.gold_brand_performance.revenue_rank is
    '1 has the most revenue; equal revenue has an equal rank.';
