-- Grain: one row per business day with sales.
drop view if exists scout.gold_daily_revenue;
create view scout.gold_daily_revenue as
select
    business_day,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / count(*), 2) as average_sale,
    max(peso_value) as largest_sale
from scout.silver_transactions
where status is distinct from 'void'
group by business_day
order by business_day;
comment on view scout.gold_daily_revenue is
    'Revenue of each business day. One row per day where the store is; the day is null for sales whose time nobody
     knows. Pesos; voided sales excluded.';
