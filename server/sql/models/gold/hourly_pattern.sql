-- Grain: one row per hour of the day with sales.
drop view if exists scout.gold_hourly_pattern;
create view scout.gold_hourly_pattern as
select
    business_hour,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent
from scout.silver_sales
group by business_hour
order by business_hour;
comment on view scout.gold_hourly_pattern is
    'At which hours the stores sell. One row per hour, 0 to 23, where the store is; null for sales whose time nobody
     knows. Pesos and percent of all sales; voided sales excluded.';
comment on column scout.gold_hourly_pattern.business_hour is
    '0 to 23, where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_hourly_pattern.transactions is 'Sales.';
comment on column scout.gold_hourly_pattern.revenue is 'What was paid, in pesos.';
comment on column scout.gold_hourly_pattern.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_hourly_pattern.transactions_percent is 'Of all sales.';
