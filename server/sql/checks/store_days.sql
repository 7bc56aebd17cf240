-- Each store's day is what all of silver adds up to, and there is no other.
with expected as (
    select
        coalesce(store_id, 'unknown') as store_id,
        business_day,
        count(*) as transactions,
        coalesce(sum(peso_value), 0) as revenue,
        coalesce(sum(units_per_transaction), 0) as units,
        coalesce(array_agg(distinct customer_id) filter (where customer_id is not null), '{}') as customers
    from scout.silver_transactions
    where status is distinct from 'void' and business_day is not null
    group by coalesce(store_id, 'unknown'), business_day
)
(table expected except table scout.store_days)
union all
(table scout.store_days except table expected)
