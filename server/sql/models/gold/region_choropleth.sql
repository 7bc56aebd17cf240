-- Grain: one row per region with sales.
drop view if exists scout.gold_region_choropleth;
create view scout.gold_region_choropleth as
select
    sale.region,
    known.region_code,
    known.iso_code,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent,
    round(sum(revenue) / nullif(count(distinct store_id), 0), 2) as revenue_per_store
from scout.silver_sales as sale
left join scout.regions as known on known.name = lower(sale.region)
group by sale.region, known.region_code, known.iso_code
order by revenue desc, region;
comment on view scout.gold_region_choropleth is
    'What each region sold, with the codes by which a map finds it, best first. One row per region as tills spell it:
     where they spell it in two ways, a map adds up the rows of one code. Pesos, counts and percent of all revenue;
     voided sales excluded.';
comment on column scout.gold_region_choropleth.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_region_choropleth.region_code is
    'Philippine Standard Geographic Code, 10 digits; null where scout.regions doesn''t know the name.';
comment on column scout.gold_region_choropleth.iso_code is
    'ISO 3166-2; null where scout.regions doesn''t know the name, or ISO doesn''t know the region.';
comment on column scout.gold_region_choropleth.transactions is 'Sales.';
comment on column scout.gold_region_choropleth.revenue is 'What was paid, in pesos.';
comment on column scout.gold_region_choropleth.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_region_choropleth.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_region_choropleth.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_region_choropleth.revenue_percent is 'Of the revenue of all sales.';
comment on column scout.gold_region_choropleth.revenue_per_store is
    'Pesos, to the centavo; null where no sale names its store.';
