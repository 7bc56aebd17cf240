-- Grain: one row per hour of the day with sales.
drop view if exists scout.gold_hourly_pattern;
create view scout.gold_hourly_pattern as
select
    business_hour,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent
from scout.silver_transactions
where status is distinct from 'void'
group by business_hour
order by business_hour;
comment on view scout.gold_hourly_pattern is
    'At which hours the stores sell. One row per hour, 0 to 23, where the store is; null for sales whose time
     nobody knows. Pesos and percent of all sales; voided sales excluded.';
