-- Grain: one row per store with sales.
drop view if exists scout.gold_store_performance;
create view scout.gold_store_performance as
select
    coalesce(store_id, 'unknown') as store_id,
    -- The same in all sales of a store.
    max(store_type) as store_type,
    max(region) as region,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct customer_id) as customers,
    count(distinct business_day) as days,
    min(business_day) as first_day,
    max(business_day) as last_day,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank
from scout.silver_sales
group by coalesce(store_id, 'unknown')
order by revenue_rank, store_id;
comment on view scout.gold_store_performance is
    'What each store sold, best first. One row per store, `unknown` for sales that name none. Pesos and percent of
     all revenue; voided sales excluded.';
comment on column scout.gold_store_performance.store_id is '`unknown` for sales that name none.';
comment on column scout.gold_store_performance.store_type is '`unknown` where nobody named it.';
comment on column scout.gold_store_performance.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_store_performance.transactions is 'Sales.';
comment on column scout.gold_store_performance.revenue is 'What was paid, in pesos.';
comment on column scout.gold_store_performance.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_store_performance.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_store_performance.days is 'Business days with sales.';
comment on column scout.gold_store_performance.first_day is 'Business day of the first sale.';
comment on column scout.gold_store_performance.last_day is 'Business day of the last sale.';
comment on column scout.gold_store_performance.revenue_percent is 'Of the revenue of all sales.';
comment on column scout.gold_store_performance.revenue_rank is
    '1 has the most revenue; equal revenue has an equal rank.';
