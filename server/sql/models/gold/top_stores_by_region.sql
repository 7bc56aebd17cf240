-- Grain: one row per region and store, of the ten best stores of each region and those equal to the tenth.
drop view if exists scout.gold_top_stores_by_region;
create view scout.gold_top_stores_by_region as
with ranked as (
    select
        region,
        coalesce(store_id, 'unknown') as store_id,
        count(*) as transactions,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as average_sale,
        round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (partition by region), 0), 2)
            as region_revenue_percent,
        rank() over (partition by region order by sum(revenue) desc) as region_rank
    from scout.silver_sales
    group by region, coalesce(store_id, 'unknown')
)
select *
from ranked
where region_rank <= 10
order by region, region_rank, store_id;
comment on view scout.gold_top_stores_by_region is
    'The best stores of each region, by revenue. One row per region and store. Pesos and percent of the region''s
     revenue; voided sales excluded.';
comment on column scout.gold_top_stores_by_region.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_top_stores_by_region.store_id is '`unknown` for sales that name none.';
comment on column scout.gold_top_stores_by_region.transactions is 'Sales.';
comment on column scout.gold_top_stores_by_region.revenue is 'What was paid, in pesos.';
comment on column scout.gold_top_stores_by_region.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_top_stores_by_region.region_revenue_percent is
    'Of the revenue of all stores of the region.';
comment on column scout.gold_top_stores_by_region.region_rank is
    'In the region: 1 has the most revenue; equal revenue has an equal rank. 10 is the last.';
