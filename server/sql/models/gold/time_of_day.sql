-- Grain: one row per part of the day with sales.
drop view if exists scout.gold_time_of_day;
create view scout.gold_time_of_day as
select
    part_of_day,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent
from scout.silver_sales
group by part_of_day
order by array_position(array['morning', 'afternoon', 'evening', 'night'], part_of_day);
comment on view scout.gold_time_of_day is
    'When in the day the stores sell. One row per part of the day, where the store is; null for sales whose time
     nobody knows. Pesos, and percent of all sales and of revenue; voided sales excluded.';
comment on column scout.gold_time_of_day.part_of_day is
    'morning from 6, afternoon from 12, evening from 18, night from 22 o''clock.';
comment on column scout.gold_time_of_day.transactions is 'Sales.';
comment on column scout.gold_time_of_day.revenue is 'What was paid, in pesos.';
comment on column scout.gold_time_of_day.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_time_of_day.transactions_percent is 'Of all sales.';
comment on column scout.gold_time_of_day.revenue_percent is 'Of the revenue of all sales.';
