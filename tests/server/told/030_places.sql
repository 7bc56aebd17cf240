-- What the views of days, hours, stores and places must say.
create schema scout;

create view scout.gold_txn_daily as
select
    business_day,
    count(*) filter (status is distinct from 'void') as transactions,
    count(*) filter (status = 'void') as voided,
    coalesce(sum(units) filter (status is distinct from 'void'), 0) as units,
    ratio(
        sum(units) filter (status is distinct from 'void'), count(units) filter (status is distinct from 'void'), 2
    ) as average_units,
    ratio(
        sum(basket_size) filter (status is distinct from 'void'),
        count(basket_size) filter (status is distinct from 'void'),
        2
    ) as average_basket_size,
    count(distinct customer_id) filter (status is distinct from 'void') as customers,
    count(distinct store_id) filter (status is distinct from 'void') as stores,
    count(distinct device_id) filter (status is distinct from 'void') as devices
from current_sale
group by business_day;

create view scout.gold_daily_revenue as
select business_day, unnest(totals(paid)), max(peso_value) as largest_sale
from sale
group by business_day;

create view scout.gold_daily_metrics as
select
    business_day,
    unnest(totals(paid)),
    coalesce(sum(units), 0) as units,
    count(distinct customer_id) as customers,
    count(distinct store_id) as stores,
    ratio(sum(duration_seconds), count(duration_seconds), 1) as average_duration_seconds,
    count(*) filter (campaign_influenced) as campaign_transactions,
    count(*) filter (suggestion_accepted) as suggestions_accepted,
    count(*) filter (n in (select n from substitution where occurred)) as substitutions,
    count(*) filter (is_tbwa_client) as tbwa_transactions
from sale
group by business_day;

create view scout.gold_hourly_pattern as
select business_hour, unnest(totals(paid)), percent(count(*), (select count(*) from sale)) as transactions_percent
from sale
group by business_hour;

create view scout.gold_time_of_day as
select
    part_of_day,
    unnest(totals(paid)),
    percent(count(*), (select count(*) from sale)) as transactions_percent,
    percent(sum(paid), (select sum(paid) from sale)) as revenue_percent
from sale
group by part_of_day;

create view scout.gold_weekday_pattern as
select
    weekday,
    count(distinct business_day) as days,
    count(*) as transactions,
    sum(paid) as revenue,
    ratio(sum(paid), count(distinct business_day), 2) as revenue_per_day
from sale
group by weekday;

create view scout.gold_revenue_trend as
with day as (
    select business_day, count(*) as transactions, sum(paid) as revenue
    from sale
    where business_day is not null
    group by business_day
)
select
    day.business_day,
    day.transactions,
    day.revenue,
    (select revenue from day as other where other.business_day = day.business_day - 1) as revenue_day_before,
    week_before.revenue as revenue_week_before,
    percent(day.revenue - week_before.revenue, week_before.revenue) as change_percent,
    case when day.business_day >= (select min(business_day) from day) + 6 then ratio(
        (
            select sum(revenue) from day as other
            where other.business_day > day.business_day - 7 and other.business_day <= day.business_day
        ),
        7,
        2
    ) end as revenue_7_day_average
from day
left join day as week_before on week_before.business_day = day.business_day - 7;

create view scout.gold_executive_kpis as
with recent as (
    select
        coalesce(sum(paid) filter (business_day > newest - 7), 0) as last_7,
        coalesce(sum(paid) filter (business_day > newest - 14 and business_day <= newest - 7), 0) as before_7
    from sale, (select max(business_day) as newest from sale)
)
select
    count(*) as transactions,
    coalesce(sum(paid), 0) as revenue,
    ratio(sum(paid), count(*), 2) as average_sale,
    coalesce(sum(units), 0) as units,
    count(distinct store_id) as stores,
    count(distinct device_id) as devices,
    count(distinct customer_id) as customers,
    min(business_day) as first_day,
    max(business_day) as last_day,
    count(distinct business_day) as days,
    (select last_7 from recent) as revenue_last_7_days,
    (select before_7 from recent) as revenue_7_days_before,
    (select count(*) from void) as voided,
    (select percent(last_7 - before_7, before_7) from recent) as revenue_change_percent
from sale;

create view scout.gold_store_performance as
select
    store as store_id,
    any_value(store_type) as store_type,
    any_value(region) as region,
    unnest(totals(paid)),
    count(distinct customer_id) as customers,
    count(distinct business_day) as days,
    min(business_day) as first_day,
    max(business_day) as last_day,
    percent(sum(paid), (select sum(paid) from sale)) as revenue_percent,
    rank() over (order by sum(paid) desc) as revenue_rank
from sale
group by store;

create view scout.gold_store_daily as
select
    store as store_id,
    business_day,
    unnest(totals(paid)),
    coalesce(sum(units), 0) as units,
    count(distinct customer_id) as customers
from sale
group by store, business_day;

create view scout.gold_top_stores_by_region as
select
    region,
    store as store_id,
    unnest(totals(paid)),
    percent(sum(paid), sum(sum(paid)) over (partition by region)) as region_revenue_percent,
    rank() over (partition by region order by sum(paid) desc) as region_rank
from sale
group by region, store
qualify region_rank <= 10;

create view scout.gold_region_daily as
select
    region,
    business_day,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers
from sale
group by region, business_day;

create view scout.gold_region_weekly as
with week as (
    select
        region,
        week,
        unnest(totals(paid)),
        count(distinct store_id) as stores,
        count(distinct customer_id) as customers
    from sale
    group by region, week
)
select
    week.*,
    week_before.revenue as revenue_week_before,
    percent(week.revenue - week_before.revenue, week_before.revenue) as change_percent
from week
left join week as week_before on week_before.region = week.region and week_before.week = week.week - 7;

create view scout.gold_region_monthly as
with month as (
    select
        region,
        month,
        unnest(totals(paid)),
        count(distinct store_id) as stores,
        count(distinct customer_id) as customers
    from sale
    group by region, month
)
select
    month.*,
    month_before.revenue as revenue_month_before,
    percent(month.revenue - month_before.revenue, month_before.revenue) as change_percent
from month
left join month as month_before
    on month_before.region = month.region and month_before.month = (month.month - interval 1 month)::date;

create view scout.gold_province_daily as
select
    region, province, business_day,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers
from sale
group by region, province, business_day;

create view scout.gold_citymun_daily as
select
    region, province, city, business_day,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers
from sale
group by region, province, city, business_day;

create view scout.gold_barangay_daily as
select
    region, province, city, barangay, business_day,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers
from sale
group by region, province, city, barangay, business_day;

-- The codes of the regions that the tests' sales name, from the Philippine Standard Geographic Code and ISO 3166-2.
create view scout.gold_region_choropleth as
with code (name, region_code, iso_code) as (
    values
        ('ncr', '1300000000', 'PH-00'),
        ('metro manila', '1300000000', 'PH-00'),
        ('region vii', '0700000000', 'PH-07'),
        ('central visayas', '0700000000', 'PH-07'),
        ('region xi', '1100000000', 'PH-11')
)
select
    region,
    any_value(region_code) as region_code,
    any_value(iso_code) as iso_code,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct customer_id) as customers,
    percent(sum(paid), (select sum(paid) from sale)) as revenue_percent,
    ratio(sum(paid), count(distinct store_id), 2) as revenue_per_store
from sale
left join code on code.name = lower(region)
group by region;

create view scout.gold_device_daily as
select
    device as device_id,
    business_day,
    count(*) filter (not is_void) as transactions,
    count(*) filter (is_void) as voided,
    coalesce(sum(paid) filter (not is_void), 0) as revenue,
    ratio(sum(paid) filter (not is_void), count(*) filter (not is_void), 2) as average_sale,
    coalesce(sum(units) filter (not is_void), 0) as units,
    count(distinct store_id) filter (not is_void) as stores,
    min(sold_at) filter (not is_void) as first_sold_at,
    max(sold_at) filter (not is_void) as last_sold_at
from (
    select false as is_void, device, business_day, paid, units, store_id, sold_at from sale
    union all
    select true, device, business_day, 0, units, store_id, sold_at from void
)
group by device, business_day;
