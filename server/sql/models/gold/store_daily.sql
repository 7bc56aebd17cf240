-- Grain: one row per store and business day with sales.
drop view if exists scout.gold_store_daily;
create view scout.gold_store_daily as
select
    store_id,
    business_day,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / count(*), 2) as average_sale,
    coalesce(sum(units_per_transaction), 0) as units,
    count(distinct customer_id) as customers
from scout.silver_transactions
where status is distinct from 'void'
group by store_id, business_day
order by store_id, business_day;
comment on view scout.gold_store_daily is
    'What each store sold on each day. One row per store and business day where the store is; null for what nobody
     knows. Pesos and units; voided sales excluded.';
