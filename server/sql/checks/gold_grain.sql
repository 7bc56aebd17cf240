-- Each view of gold has one row per what its first line says, and `gold_executive_kpis` one row.
with repeated (view) as (
    select 'gold_executive_kpis' from scout.gold_executive_kpis having count(*) <> 1
    union all
    select 'gold_txn_daily' from scout.gold_txn_daily group by business_day having count(*) > 1
    union all
    select 'gold_daily_revenue' from scout.gold_daily_revenue group by business_day having count(*) > 1
    union all
    select 'gold_daily_metrics' from scout.gold_daily_metrics group by business_day having count(*) > 1
    union all
    select 'gold_hourly_pattern' from scout.gold_hourly_pattern group by business_hour having count(*) > 1
    union all
    select 'gold_time_of_day' from scout.gold_time_of_day group by part_of_day having count(*) > 1
    union all
    select 'gold_weekday_pattern' from scout.gold_weekday_pattern group by weekday having count(*) > 1
    union all
    select 'gold_revenue_trend' from scout.gold_revenue_trend group by business_day having count(*) > 1
    union all
    select 'gold_store_performance' from scout.gold_store_performance group by store_id having count(*) > 1
    union all
    select 'gold_store_daily' from scout.gold_store_daily group by store_id, business_day having count(*) > 1
    union all
    select 'gold_top_stores_by_region' from scout.gold_top_stores_by_region group by region, store_id having count(*) > 1
    union all
    select 'gold_region_daily' from scout.gold_region_daily group by region, business_day having count(*) > 1
    union all
    select 'gold_region_weekly' from scout.gold_region_weekly group by region, week having count(*) > 1
    union all
    select 'gold_region_monthly' from scout.gold_region_monthly group by region, month having count(*) > 1
    union all
    select 'gold_province_daily' from scout.gold_province_daily group by region, province, business_day having count(*) > 1
    union all
    select 'gold_citymun_daily' from scout.gold_citymun_daily group by region, province, city, business_day having count(*) > 1
    union all
    select 'gold_barangay_daily' from scout.gold_barangay_daily group by region, province, city, barangay, business_day having count(*) > 1
    union all
    select 'gold_region_choropleth' from scout.gold_region_choropleth group by region having count(*) > 1
    union all
    select 'gold_product_mix' from scout.gold_product_mix group by product_category having count(*) > 1
    union all
    select 'gold_product_performance' from scout.gold_product_performance group by sku having count(*) > 1
    union all
    select 'gold_sku_performance' from scout.gold_sku_performance group by store_id, sku having count(*) > 1
    union all
    select 'gold_brand_performance' from scout.gold_brand_performance group by brand_name having count(*) > 1
    union all
    select 'gold_category_brand_share' from scout.gold_category_brand_share group by product_category, brand_name having count(*) > 1
    union all
    select 'gold_basket_patterns' from scout.gold_basket_patterns group by sku_a, sku_b having count(*) > 1
    union all
    select 'gold_combo_pairs' from scout.gold_combo_pairs group by sku_a, sku_b having count(*) > 1
    union all
    select 'gold_substitution_flows' from scout.gold_substitution_flows group by from_sku, from_brand, to_sku, to_brand, reason having count(*) > 1
    union all
    select 'gold_request_behavior' from scout.gold_request_behavior group by request_mode, request_type having count(*) > 1
    union all
    select 'gold_suggestion_effect' from scout.gold_suggestion_effect group by suggestion having count(*) > 1
    union all
    select 'gold_demographics' from scout.gold_demographics group by gender, age_bracket having count(*) > 1
    union all
    select 'gold_customer_segments' from scout.gold_customer_segments group by customer_type having count(*) > 1
    union all
    select 'gold_customer_activity' from scout.gold_customer_activity group by customer_id having count(*) > 1
    union all
    select 'gold_payment_analysis' from scout.gold_payment_analysis group by payment_method having count(*) > 1
    union all
    select 'gold_campaign_effect' from scout.gold_campaign_effect group by campaign having count(*) > 1
    union all
    select 'gold_economic_class' from scout.gold_economic_class group by economic_class having count(*) > 1
    union all
    select 'gold_tbwa_client_share' from scout.gold_tbwa_client_share group by month having count(*) > 1
    union all
    select 'gold_revenue_by_dim' from scout.gold_revenue_by_dim group by dimension, value having count(*) > 1
    union all
    select 'gold_device_daily' from scout.gold_device_daily group by device_id, business_day having count(*) > 1
    union all
    select 'gold_data_quality' from scout.gold_data_quality group by measure, field having count(*) > 1
)
select view, count(*) as repeated from repeated group by view
