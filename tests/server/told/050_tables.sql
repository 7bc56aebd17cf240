-- What the five tables of scout_gold must hold: sales with a business day only.
create schema scout_gold;
create view dated_sale as select * from sale where business_day is not null;

create view scout_gold.daily_transactions as
select
    business_day,
    device as device_id,
    count(*) filter (not is_void) as transactions,
    count(*) filter (is_void) as voided,
    coalesce(sum(peso_value) filter (not is_void), 0) as revenue,
    ratio(
        coalesce(sum(peso_value) filter (not is_void), 0), count(*) filter (not is_void), 2
    ) as average_sale,
    max(peso_value) filter (not is_void) as largest_sale,
    coalesce(sum(units) filter (not is_void), 0) as units,
    count(distinct customer_id) filter (not is_void) as customers,
    min(sold_at) filter (not is_void) as first_sold_at,
    max(sold_at) filter (not is_void) as last_sold_at
from (
    select false as is_void, device, business_day, peso_value, units, customer_id, sold_at from dated_sale
    union all
    select true, device, business_day, peso_value, units, customer_id, sold_at
    from void
    where business_day is not null
)
group by business_day, device;

create view scout_gold.weekly_performance as
with week as (
    select
        week,
        store as store_id,
        unnest(totals(paid)),
        coalesce(sum(units), 0) as units,
        count(distinct customer_id) as customers,
        count(distinct business_day) as days
    from dated_sale
    group by week, store
)
select
    week.*,
    before.revenue as revenue_week_before,
    percent(week.revenue - before.revenue, before.revenue) as growth_percent,
    percent(week.revenue, sum(week.revenue) over (partition by week.week)) as revenue_percent,
    rank() over (partition by week.week order by week.revenue desc) as revenue_rank
from week
left join week as before on before.store_id = week.store_id and before.week = week.week - 7;

create view scout_gold.monthly_trends as
with month as (
    select
        month,
        store as store_id,
        unnest(totals(paid)),
        coalesce(sum(units), 0) as units,
        count(distinct customer_id) as customers,
        count(distinct business_day) as days
    from dated_sale
    group by month, store
)
select
    month.*,
    before.revenue as revenue_month_before,
    percent(month.revenue - before.revenue, before.revenue) as growth_percent,
    percent(month.revenue, sum(month.revenue) over (partition by month.month)) as revenue_percent,
    rank() over (partition by month.month order by month.revenue desc) as revenue_rank
from month
left join month as before
    on before.store_id = month.store_id and before.month = (month.month - interval 1 month)::date;

create view scout_gold.store_rankings as
select
    store as store_id,
    any_value(store_type) as store_type,
    any_value(region) as region,
    unnest(totals(paid)),
    coalesce(sum(units), 0) as units,
    count(distinct business_day) as days,
    ratio(sum(paid), count(distinct business_day), 2) as revenue_per_day,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent,
    rank() over (order by sum(paid) desc) as revenue_rank,
    rank() over (partition by any_value(region) order by sum(paid) desc) as region_rank
from dated_sale
group by store;

create view scout_gold.product_insights as
select
    sku,
    any_value(named) as product_name,
    any_value(named_category) as product_category,
    any_value(named_brand) as brand_name,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    ratio(sum(revenue), sum(qty), 4) as average_price,
    min(business_day) as first_day,
    max(business_day) as last_day,
    percent(sum(revenue), sum(sum(revenue)) over ()) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank,
    rank() over (partition by any_value(named_category) order by sum(revenue) desc) as category_rank
from line
where business_day is not null
group by sku;
