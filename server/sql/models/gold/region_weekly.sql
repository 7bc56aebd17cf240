-- Grain: one row per region and week with sales.
drop view if exists scout.gold_region_weekly;
create view scout.gold_region_weekly as
with weekly as (
    select
        region,
        week,
        count(*) as transactions,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as average_sale,
        count(distinct store_id) as stores,
        count(distinct customer_id) as customers
    from scout.silver_sales
    group by region, week
)
select
    this.*,
    before.revenue as revenue_week_before,
    round(100 * (this.revenue - before.revenue) / nullif(before.revenue, 0), 2) as change_percent
from weekly as this
left join weekly as before on before.region = this.region and before.week = this.week - 7
order by this.region, this.week;
comment on view scout.gold_region_weekly is
    'Whether the stores of a region sell more than the week before. One row per region and calendar week where the
     store is. Pesos, counts and percent; voided sales excluded.';
comment on column scout.gold_region_weekly.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_region_weekly.week is 'The Monday of the week; null for sales whose time nobody knows.';
comment on column scout.gold_region_weekly.transactions is 'Sales.';
comment on column scout.gold_region_weekly.revenue is 'What was paid, in pesos.';
comment on column scout.gold_region_weekly.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_region_weekly.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_region_weekly.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_region_weekly.revenue_week_before is
    'In pesos, of the calendar week before; null where the region had no sales then.';
comment on column scout.gold_region_weekly.change_percent is
    'Against the calendar week before; null where that had no revenue.';
