-- Each view of gold that divides the revenue adds up to that of silver, to the cent.
with silver as (
    select coalesce(sum(peso_value), 0) as revenue
    from scout.silver_transactions
    where status is distinct from 'void'
),
gold (view, revenue) as (
    select 'gold_daily_revenue', sum(revenue) from scout.gold_daily_revenue
    union all
    select 'gold_hourly_pattern', sum(revenue) from scout.gold_hourly_pattern
    union all
    select 'gold_weekday_pattern', sum(revenue) from scout.gold_weekday_pattern
    union all
    select 'gold_store_performance', sum(revenue) from scout.gold_store_performance
    union all
    select 'gold_store_daily', sum(revenue) from scout.gold_store_daily
    union all
    select 'gold_time_of_day', sum(revenue) from scout.gold_time_of_day
    union all
    select 'gold_daily_metrics', sum(revenue) from scout.gold_daily_metrics
    union all
    select 'gold_region_daily', sum(revenue) from scout.gold_region_daily
    union all
    select 'gold_region_weekly', sum(revenue) from scout.gold_region_weekly
    union all
    select 'gold_region_monthly', sum(revenue) from scout.gold_region_monthly
    union all
    select 'gold_province_daily', sum(revenue) from scout.gold_province_daily
    union all
    select 'gold_citymun_daily', sum(revenue) from scout.gold_citymun_daily
    union all
    select 'gold_barangay_daily', sum(revenue) from scout.gold_barangay_daily
    union all
    select 'gold_region_choropleth', sum(revenue) from scout.gold_region_choropleth
    union all
    select 'gold_device_daily', sum(revenue) from scout.gold_device_daily
    union all
    select 'gold_product_performance', sum(revenue) from scout.gold_product_performance
    union all
    select 'gold_brand_performance', sum(revenue) from scout.gold_brand_performance
    union all
    select 'gold_payment_analysis', sum(revenue) from scout.gold_payment_analysis
    union all
    select 'gold_executive_kpis', revenue from scout.gold_executive_kpis
)
select gold.view, gold.revenue, silver.revenue as silver_revenue
from gold
cross join silver
where coalesce(gold.revenue, 0) <> silver.revenue
