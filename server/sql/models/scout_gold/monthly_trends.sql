-- Step of the ETL, after store_days. Grain: one row per month and store with sales. Reads scout.store_days, of the
-- stores' months that are due only. What compares a store with the others, or with its month before, is derived from
-- the stored sums of the months that are due and those after them.
create or replace function scout_gold.refresh_monthly_trends(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    rows_read bigint;
    rows_written bigint;
begin
    with due as materialized (
        delete from scout.groups_due where target = 'monthly_trends' returning day as month, member as store_id
    ),
    -- A sum without `group by` is one row also where nothing is left to add up.
    summed as materialized (
        select due.month, due.store_id, transactions, revenue, units, customers, days
        from (select distinct month, store_id from due) as due
        cross join lateral (
            select
                coalesce(sum(transactions), 0)::bigint as transactions,
                sum(revenue) as revenue,
                sum(units)::bigint as units,
                count(*) as days
            from scout.store_days as day
            where day.store_id = due.store_id
                and day.business_day >= due.month
                and day.business_day < due.month + interval '1 month'
        ) as all_days
        cross join lateral (
            select count(distinct customer.id) as customers
            from scout.store_days as day
            cross join unnest(day.customers) as customer (id)
            where day.store_id = due.store_id
                and day.business_day >= due.month
                and day.business_day < due.month + interval '1 month'
        ) as visits
    ),
    shown as materialized (
        select month from due union select (month + interval '1 month')::date from due
    ),
    -- With those before, which the growth of the others needs.
    near as (
        select month from shown union select (month - interval '1 month')::date from shown
    ),
    standing as (
        select * from summed where transactions > 0
        union all
        select stored.*
        from near
        -- `offset 0`: looked up month by month, however many there are.
        cross join lateral (
            select month, store_id, transactions, revenue, units, customers, days
            from scout_gold.monthly_trends as stored
            where stored.month = near.month
            offset 0
        ) as stored
        where not exists (
            select from summed where summed.month = stored.month and summed.store_id = stored.store_id
        )
    ),
    compared as (
        select
            month,
            store_id,
            transactions,
            revenue,
            round(revenue / transactions, 2)::numeric(24, 2) as average_sale,
            units,
            customers,
            days,
            sum(revenue) over month_before as revenue_month_before,
            round(100 * (revenue - sum(revenue) over month_before) / nullif(sum(revenue) over month_before, 0), 2)
                as growth_percent,
            round(100 * revenue / nullif(sum(revenue) over (partition by month), 0), 2) as revenue_percent,
            rank() over (partition by month order by revenue desc) as revenue_rank
        from standing
        window month_before as (
            partition by store_id
            order by month
            range between interval '1 month' preceding and interval '1 month' preceding
        )
    ),
    derived as materialized (
        select compared.* from compared join shown using (month)
    ),
    removed as (
        delete from scout_gold.monthly_trends as stored
        using summed
        where stored.month = summed.month and stored.store_id = summed.store_id and summed.transactions = 0
        returning stored.store_id
    ),
    written as (
        insert into scout_gold.monthly_trends as stored
        select derived.*
        from derived
        where derived is distinct from (
            select stored
            from scout_gold.monthly_trends as stored
            where stored.month = derived.month and stored.store_id = derived.store_id
        )
        on conflict (month, store_id) do update set (
            transactions, revenue, average_sale, units, customers, days,
            revenue_month_before, growth_percent, revenue_percent, revenue_rank
        ) = (
            excluded.transactions, excluded.revenue, excluded.average_sale, excluded.units, excluded.customers,
            excluded.days, excluded.revenue_month_before, excluded.growth_percent, excluded.revenue_percent,
            excluded.revenue_rank
        )
        returning store_id
    ),
    passed_on as (
        insert into scout.groups_due (target, member) select distinct 'store_rankings', store_id from due
    )
    select
        (select count(*) from derived) + (select count(*) from removed),
        (select count(*) from written) + (select count(*) from removed)
    into rows_read, rows_written;

    return next row(
        'scout_gold.monthly_trends', rows_read, rows_written, rows_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout_gold.refresh_monthly_trends is
    'Recomputes the stores'' months that are due, whichever loads touched them, and what others derive from them. May be
     run again; then it finds none.';
