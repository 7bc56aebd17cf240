-- Grain: one row per store and business day with sales.
drop view if exists scout.gold_store_daily;
create view scout.gold_store_daily as
select
    coalesce(store_id, 'unknown') as store_id,
    business_day,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    coalesce(sum(units_per_transaction), 0) as units,
    count(distinct customer_id) as customers
from scout.silver_sales
group by coalesce(store_id, 'unknown'), business_day
order by store_id, business_day;
comment on view scout.gold_store_daily is
    'What each store sold on each day. One row per store and business day where the store is. Pesos and units; voided
     sales excluded.';
comment on column scout.gold_store_daily.store_id is '`unknown` for sales that name none.';
comment on column scout.gold_store_daily.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_store_daily.transactions is 'Sales.';
comment on column scout.gold_store_daily.revenue is 'What was paid, in pesos.';
comment on column scout.gold_store_daily.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_store_daily.units is 'Units sold, as far as tills say.';
comment on column scout.gold_store_daily.customers is 'Different customers, of the sales that name one.';
