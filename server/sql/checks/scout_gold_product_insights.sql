-- Each product is what all lines of silver add up to, and there is no other.
with summed as (
    select
        sku,
        count(distinct (source_id, transaction_key)) as transactions,
        sum(qty) as quantity,
        sum(revenue) as revenue,
        min(business_day) as first_day,
        max(business_day) as last_day
    from scout.silver_revenue_lines
    where business_day is not null
    group by sku
),
expected as (
    select
        sku,
        product_name,
        product_category,
        brand_name,
        transactions,
        quantity,
        revenue,
        round(revenue / nullif(quantity, 0), 4) as average_price,
        first_day,
        last_day,
        round(100 * revenue / nullif(sum(revenue) over (), 0), 2) as revenue_percent,
        rank() over (order by revenue desc) as revenue_rank,
        rank() over (partition by product_category order by revenue desc) as category_rank
    from summed
    left join scout.dim_sku using (sku)
)
(table expected except table scout_gold.product_insights)
union all
(table scout_gold.product_insights except table expected)
