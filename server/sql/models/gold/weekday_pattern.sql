-- Grain: one row per weekday with sales.
drop view if exists scout.gold_weekday_pattern;
create view scout.gold_weekday_pattern as
select
    extract(isodow from business_day)::smallint as weekday,
    count(distinct business_day) as days,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / nullif(count(distinct business_day), 0), 2) as revenue_per_day
from scout.silver_transactions
where status is distinct from 'void'
group by weekday
order by weekday;
comment on view scout.gold_weekday_pattern is
    'On which weekdays the stores sell. One row per weekday, 1 is Monday and 7 Sunday; null for sales whose time
     nobody knows. Pesos; `days` counts the days with sales; voided sales excluded.';
