-- Grain: one row per weekday with sales.
drop view if exists scout.gold_weekday_pattern;
create view scout.gold_weekday_pattern as
select
    weekday,
    count(distinct business_day) as days,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / nullif(count(distinct business_day), 0), 2) as revenue_per_day
from scout.silver_sales
group by weekday
order by weekday;
comment on view scout.gold_weekday_pattern is
    'On which weekdays the stores sell. One row per weekday, 1 is Monday and 7 Sunday; null for sales whose time
     nobody knows. Pesos; voided sales excluded.';
comment on column scout.gold_weekday_pattern.weekday is
    '1 is Monday, 7 is Sunday; null for sales whose time nobody knows.';
comment on column scout.gold_weekday_pattern.days is 'Business days with sales.';
comment on column scout.gold_weekday_pattern.transactions is 'Sales.';
comment on column scout.gold_weekday_pattern.revenue is 'What was paid, in pesos.';
comment on column scout.gold_weekday_pattern.revenue_per_day is
    'Pesos, to the centavo, on a day with sales; null where no day is known.';
