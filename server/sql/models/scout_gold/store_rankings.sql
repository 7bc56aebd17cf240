-- Step of the ETL, after monthly_trends. Grain: one row per store with sales. Reads scout_gold.monthly_trends, of the
-- stores that are due only, and of scout.dim_store every store's type and region. What compares a store with the
-- others is derived from the stored sums.
create or replace function scout_gold.refresh_store_rankings(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    rows_read bigint := 0;
    rows_written bigint := 0;
begin
    -- Where none changed, the stores need not be compared.
    if exists (select from scout.groups_due where target = 'store_rankings') then
        with due as materialized (
            delete from scout.groups_due where target = 'store_rankings' returning member as store_id
        ),
        summed as materialized (
            select due.store_id, months.*
            from (select distinct store_id from due) as due
            cross join lateral (
                select
                    coalesce(sum(transactions), 0)::bigint as transactions,
                    sum(revenue) as revenue,
                    sum(units)::bigint as units,
                    sum(days)::bigint as days
                from scout_gold.monthly_trends as month
                where month.store_id = due.store_id
            ) as months
        ),
        standing as (
            select * from summed where transactions > 0
            union all
            select store_id, transactions, revenue, units, days
            from scout_gold.store_rankings as stored
            where not exists (select from summed where summed.store_id = stored.store_id)
        ),
        derived as materialized (
            select
                store_id,
                coalesce(dim.store_type, 'unknown') as store_type,
                coalesce(dim.region, 'unknown') as region,
                transactions,
                revenue,
                round(revenue / transactions, 2) as average_sale,
                units,
                days,
                round(revenue / days, 2) as revenue_per_day,
                round(100 * revenue / nullif(sum(revenue) over (), 0), 2) as revenue_percent,
                rank() over (order by revenue desc) as revenue_rank,
                rank() over (partition by coalesce(dim.region, 'unknown') order by revenue desc) as region_rank
            from standing
            left join scout.dim_store as dim using (store_id)
        ),
        removed as (
            delete from scout_gold.store_rankings as stored
            using summed
            where stored.store_id = summed.store_id and summed.transactions = 0
            returning stored.store_id
        ),
        written as (
            insert into scout_gold.store_rankings as stored
            select derived.*
            from derived
            where derived is distinct from (
                select stored from scout_gold.store_rankings as stored where stored.store_id = derived.store_id
            )
            on conflict (store_id) do update set (
                store_type, region, transactions, revenue, average_sale, units, days, revenue_per_day,
                revenue_percent, revenue_rank, region_rank
            ) = (
                excluded.store_type, excluded.region, excluded.transactions, excluded.revenue, excluded.average_sale,
                excluded.units, excluded.days, excluded.revenue_per_day, excluded.revenue_percent,
                excluded.revenue_rank, excluded.region_rank
            )
            returning store_id
        )
        select
            (select count(*) from derived) + (select count(*) from removed),
            (select count(*) from written) + (select count(*) from removed)
        into rows_read, rows_written;
    end if;

    return next row(
        'scout_gold.store_rankings', rows_read, rows_written, rows_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout_gold.refresh_store_rankings is
    'Recomputes the stores that are due, also where only their type or region changed, and compares all of them anew. Run
     it after scout_gold.refresh_monthly_trends; it may be run again.';
