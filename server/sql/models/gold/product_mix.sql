-- Grain: one row per product category that was sold, one for lines whose category nobody knows, one for revenue that
-- no item explains.
drop view if exists scout.gold_product_mix;
create view scout.gold_product_mix as
select
    product_category,
    count(distinct sku) as skus,
    count(distinct raw_id) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank
from scout.silver_revenue_lines
group by product_category
order by revenue_rank, product_category;
comment on view scout.gold_product_mix is
    'What each kind of product sold, best first. One row per product category, `unknown` where the till gave none, and
     `unallocated` for what items leave over or exceed: together they are the revenue of all sales. Pesos, percent of
     it, and the till''s quantity units; voided sales excluded.';
comment on column scout.gold_product_mix.product_category is
    'As the till gave it with the line; `unknown`, or `unallocated` for what items leave over or exceed.';
comment on column scout.gold_product_mix.skus is 'Different skus; what names none counts as one.';
comment on column scout.gold_product_mix.transactions is 'Sales with such a line.';
comment on column scout.gold_product_mix.quantity is
    'Pieces, or kilos of what is weighed, as far as tills say; null where none does.';
comment on column scout.gold_product_mix.revenue is 'What was paid, in pesos.';
comment on column scout.gold_product_mix.revenue_percent is 'Of the revenue of all sales.';
comment on column scout.gold_product_mix.revenue_rank is '1 has the most revenue; equal revenue has an equal rank.';
