-- What was sold of each product on a device's day is what all lines of silver add up to, and no growth waits.
with expected as (
    select
        business_day,
        coalesce(device_id, 'unknown') as device_id,
        sku,
        count(distinct (source_id, transaction_key)) as transactions,
        sum(qty) as quantity,
        sum(revenue) as revenue
    from scout.silver_revenue_lines
    where business_day is not null
    group by business_day, coalesce(device_id, 'unknown'), sku
)
(table expected except table scout.product_days)
union all
(table scout.product_days except table expected)
union all
select null, 'waiting', sku, transactions, quantity, revenue from scout.product_growth
