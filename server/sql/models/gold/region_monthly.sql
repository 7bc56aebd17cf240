-- Grain: one row per region and month with sales.
drop view if exists scout.gold_region_monthly;
create view scout.gold_region_monthly as
with monthly as (
    select
        region,
        month,
        count(*) as transactions,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as average_sale,
        count(distinct store_id) as stores,
        count(distinct customer_id) as customers
    from scout.silver_sales
    group by region, month
)
select
    this.*,
    before.revenue as revenue_month_before,
    round(100 * (this.revenue - before.revenue) / nullif(before.revenue, 0), 2) as change_percent
from monthly as this
left join monthly as before on before.region = this.region and before.month = this.month - interval '1 month'
order by this.region, this.month;
comment on view scout.gold_region_monthly is
    'Whether the stores of a region sell more than the month before. One row per region and calendar month where the
     store is. Pesos, counts and percent; voided sales excluded.';
comment on column scout.gold_region_monthly.region is 'Of the store; `unknown` where nobody named it.';
comment on column scout.gold_region_monthly.month is
    'The first day of the month; null for sales whose time nobody knows.';
comment on column scout.gold_region_monthly.transactions is 'Sales.';
comment on column scout.gold_region_monthly.revenue is 'What was paid, in pesos.';
comment on column scout.gold_region_monthly.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_region_monthly.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_region_monthly.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_region_monthly.revenue_month_before is
    'In pesos, of the calendar month before; null where the region had no sales then.';
comment on column scout.gold_region_monthly.change_percent is
    'Against the calendar month before; null where that had no revenue.';
