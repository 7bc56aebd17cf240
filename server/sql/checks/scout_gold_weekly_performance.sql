-- Each store's week is what all of silver adds up to and compares with, and there is no other.
with summed as (
    select
        date_trunc('week', business_day::timestamp)::date as week,
        coalesce(store_id, 'unknown') as store_id,
        count(*) as transactions,
        coalesce(sum(peso_value), 0) as revenue,
        coalesce(sum(units_per_transaction), 0) as units,
        count(distinct customer_id) as customers,
        count(distinct business_day) as days
    from scout.silver_transactions
    where status is distinct from 'void' and business_day is not null
    group by 1, 2
),
expected as (
    select
        summed.week,
        summed.store_id,
        summed.transactions,
        summed.revenue,
        round(summed.revenue / summed.transactions, 2) as average_sale,
        summed.units,
        summed.customers,
        summed.days,
        before.revenue as revenue_week_before,
        round(100 * (summed.revenue - before.revenue) / nullif(before.revenue, 0), 2) as growth_percent,
        round(100 * summed.revenue / nullif(sum(summed.revenue) over every_store, 0), 2) as revenue_percent,
        rank() over (every_store order by summed.revenue desc) as revenue_rank
    from summed
    left join summed as before
        on before.store_id = summed.store_id and before.week = summed.week - interval '7 days'
    window every_store as (partition by summed.week)
)
(table expected except table scout_gold.weekly_performance)
union all
(table scout_gold.weekly_performance except table expected)
