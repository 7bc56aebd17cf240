-- Step of the ETL. Grain: one row per store and business day with sales. Reads scout.silver_sales, of the stores' days
-- that are due only. Makes the weeks and months due in which a day changed.
create or replace function scout.refresh_store_days(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    rows_read bigint;
    rows_written bigint;
begin
    with due as (
        delete from scout.groups_due where target = 'store_days' returning day as business_day, member as store_id
    ),
    -- A sum without `group by` is one row also where nothing is left to add up.
    summed as materialized (
        select due.store_id, due.business_day, sales.*
        from (select distinct store_id, business_day from due) as due
        cross join lateral (
            select
                count(*) as transactions,
                coalesce(sum(revenue), 0) as revenue,
                coalesce(sum(units_per_transaction), 0) as units,
                coalesce(array_agg(distinct customer_id) filter (where customer_id is not null), '{}') as customers
            from scout.silver_sales as sale
            where coalesce(sale.store_id, 'unknown') = due.store_id
                and sale.business_day = due.business_day
        ) as sales
    ),
    removed as (
        delete from scout.store_days as stored
        using summed
        where stored.store_id = summed.store_id
            and stored.business_day = summed.business_day
            and summed.transactions = 0
        returning stored.store_id, stored.business_day
    ),
    written as (
        insert into scout.store_days as stored (store_id, business_day, transactions, revenue, units, customers)
        select store_id, business_day, transactions, revenue, units, customers
        from summed
        where transactions > 0
        on conflict (store_id, business_day) do update set
            (transactions, revenue, units, customers)
            = (excluded.transactions, excluded.revenue, excluded.units, excluded.customers)
        where (stored.*) is distinct from (excluded.*)
        returning store_id, business_day
    ),
    changed as (
        select * from removed union all select * from written
    ),
    passed_on as (
        insert into scout.groups_due (target, day, member)
        select distinct period.target, period.day, changed.store_id
        from changed
        cross join lateral (
            values
                ('weekly_performance', date_trunc('week', business_day::timestamp)::date),
                ('monthly_trends', date_trunc('month', business_day::timestamp)::date)
        ) as period (target, day)
    )
    select (select count(*) from summed), (select count(*) from changed)
    into rows_read, rows_written;

    return next row(
        'scout.store_days', rows_read, rows_written, rows_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_store_days is
    'Recomputes the stores'' days that are due, whichever loads touched them. May be run again; then it finds none.';
