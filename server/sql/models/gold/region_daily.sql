-- Grain: one row per region and business day with sales.
drop view if exists scout.gold_region_daily;
create view scout.gold_region_daily as
select
    region,
    business_day,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers
from scout.silver_sales
group by region, business_day
order by region, business_day;
comment on view scout.gold_region_daily is
    'What the stores of each region sold on each day. One row per region and business day where the store is. Pesos
     and counts; voided sales excluded.';
comment on column scout.gold_region_daily.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_region_daily.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_region_daily.transactions is 'Sales.';
comment on column scout.gold_region_daily.revenue is 'What was paid, in pesos.';
comment on column scout.gold_region_daily.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_region_daily.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_region_daily.customers is 'Different customers, of the sales that name one.';
