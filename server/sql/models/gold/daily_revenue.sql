-- Grain: one row per business day with sales.
drop view if exists scout.gold_daily_revenue;
create view scout.gold_daily_revenue as
select
    business_day,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    max(peso_value) as largest_sale
from scout.silver_sales
group by business_day
order by business_day;
comment on view scout.gold_daily_revenue is
    'Revenue of each business day. One row per day where the store is; the day is null for sales whose time nobody
     knows. Pesos; voided sales excluded.';
comment on column scout.gold_daily_revenue.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_daily_revenue.transactions is 'Sales.';
comment on column scout.gold_daily_revenue.revenue is 'What was paid, in pesos.';
comment on column scout.gold_daily_revenue.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_daily_revenue.largest_sale is 'In pesos; null where no sale has a value.';
