-- Grain: one row per store with sales.
drop view if exists scout.gold_store_performance;
create view scout.gold_store_performance as
select
    store_id,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / count(*), 2) as average_sale,
    count(distinct customer_id) as customers,
    count(distinct business_day) as days,
    min(business_day) as first_day,
    max(business_day) as last_day,
    rank() over (order by coalesce(sum(peso_value), 0) desc) as revenue_rank
from scout.silver_transactions
where status is distinct from 'void'
group by store_id
order by revenue_rank, store_id;
comment on view scout.gold_store_performance is
    'What each store sold, best first. One row per store; null for sales that name none. Pesos; `days` counts the
     business days with sales; voided sales excluded.';
