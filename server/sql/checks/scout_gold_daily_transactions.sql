-- Each device's day is what all of silver adds up to, and there is no other.
with expected as (
    select
        business_day,
        coalesce(device_id, 'unknown') as device_id,
        count(*) - count(*) filter (where status = 'void') as transactions,
        count(*) filter (where status = 'void') as voided,
        sum(case when status is distinct from 'void' then coalesce(peso_value, 0) else 0 end) as revenue,
        round(avg(coalesce(peso_value, 0)) filter (where status is distinct from 'void'), 2) as average_sale,
        max(peso_value) filter (where status is distinct from 'void') as largest_sale,
        coalesce(sum(units_per_transaction) filter (where status is distinct from 'void'), 0) as units,
        count(distinct customer_id) filter (where status is distinct from 'void') as customers,
        min(sold_at) filter (where status is distinct from 'void') as first_sold_at,
        max(sold_at) filter (where status is distinct from 'void') as last_sold_at
    from scout.silver_transactions
    where business_day is not null
    group by business_day, coalesce(device_id, 'unknown')
)
(table expected except table scout_gold.daily_transactions)
union all
(table scout_gold.daily_transactions except table expected)
