-- Each store is ranked by what all of silver adds up to, and there is no other.
with summed as (
    select
        coalesce(store_id, 'unknown') as store_id,
        count(*) as transactions,
        coalesce(sum(peso_value), 0) as revenue,
        coalesce(sum(units_per_transaction), 0) as units,
        count(distinct business_day) as days
    from scout.silver_transactions
    where status is distinct from 'void' and business_day is not null
    group by 1
),
expected as (
    select
        store_id,
        coalesce(store_type, 'unknown') as store_type,
        coalesce(region, 'unknown') as region,
        transactions,
        revenue,
        round(revenue / transactions, 2) as average_sale,
        units,
        days,
        round(revenue / days, 2) as revenue_per_day,
        round(100 * revenue / nullif(sum(revenue) over (), 0), 2) as revenue_percent,
        rank() over (order by revenue desc) as revenue_rank,
        rank() over (partition by coalesce(region, 'unknown') order by revenue desc) as region_rank
    from summed
    left join scout.dim_store using (store_id)
)
(table expected except table scout_gold.store_rankings)
union all
(table scout_gold.store_rankings except table expected)
