-- Grain: one row per product category and brand sold in it, with `unknown` and `unallocated` as in gold_product_mix.
drop view if exists scout.gold_category_brand_share;
create view scout.gold_category_brand_share as
select
    product_category,
    brand_name,
    count(distinct raw_id) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over of_category, 0), 2) as category_percent,
    rank() over (of_category order by sum(revenue) desc) as category_rank
from scout.silver_revenue_lines
group by product_category, brand_name
window of_category as (partition by product_category)
order by product_category, category_rank, brand_name;
comment on view scout.gold_category_brand_share is
    'Which brands lead each kind of product. One row per product category and brand, `unknown` where the till gave
     none, and `unallocated` for what items leave over or exceed. Pesos, percent, and the till''s quantity units;
     voided sales excluded.';
comment on column scout.gold_category_brand_share.product_category is
    'As the till gave it with the line; `unknown`, or `unallocated` for what items leave over or exceed.';
comment on column scout.gold_category_brand_share.brand_name is
    'As the till gave it with the line; `unknown`, or `unallocated` for what items leave over or exceed.';
comment on column scout.gold_category_brand_share.transactions is 'Sales with such a line.';
comment on column scout.gold_category_brand_share.quantity is
    'Pieces, or kilos of what is weighed, as far as tills say; null where none does.';
comment on column scout.gold_category_brand_share.revenue is 'What was paid, in pesos.';
comment on column scout.gold_category_brand_share.category_percent is 'Of the category''s revenue.';
comment on column scout.gold_category_brand_share.category_rank is
    '1 has the most revenue in the category; equal revenue has an equal rank.';
