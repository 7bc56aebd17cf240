-- Step of the ETL. Grain: one row per business day and device with any sale. Reads scout.silver_transactions, of the
-- devices' days that are due only.
create or replace function scout_gold.refresh_daily_transactions(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    groups_read bigint;
    rows_written bigint;
begin
    with due as materialized (
        delete from scout.groups_due
        where target = 'daily_transactions'
        returning day as business_day, member as device_id
    ),
    -- A sum without `group by` is one row also where nothing is left to add up.
    summed as materialized (
        select due.business_day, due.device_id, sales.*
        from (select distinct business_day, device_id from due) as due
        cross join lateral (
            select
                count(*) filter (where status is distinct from 'void') as transactions,
                count(*) filter (where status = 'void') as voided,
                coalesce(sum(peso_value) filter (where status is distinct from 'void'), 0)::numeric(24, 2) as revenue,
                round(avg(coalesce(peso_value, 0)) filter (where status is distinct from 'void'), 2) as average_sale,
                max(peso_value) filter (where status is distinct from 'void') as largest_sale,
                coalesce(sum(units_per_transaction) filter (where status is distinct from 'void'), 0) as units,
                count(distinct customer_id) filter (where status is distinct from 'void') as customers,
                min(sold_at) filter (where status is distinct from 'void') as first_sold_at,
                max(sold_at) filter (where status is distinct from 'void') as last_sold_at
            from scout.silver_transactions as sale
            where coalesce(sale.device_id, 'unknown') = due.device_id and sale.business_day = due.business_day
        ) as sales
    ),
    removed as (
        delete from scout_gold.daily_transactions as stored
        using summed
        where stored.business_day = summed.business_day
            and stored.device_id = summed.device_id
            and summed.transactions + summed.voided = 0
        returning stored.device_id
    ),
    written as (
        insert into scout_gold.daily_transactions as stored
        select * from summed where transactions + voided > 0
        on conflict (business_day, device_id) do update set (
            transactions, voided, revenue, average_sale, largest_sale, units, customers, first_sold_at, last_sold_at
        ) = (
            excluded.transactions, excluded.voided, excluded.revenue, excluded.average_sale, excluded.largest_sale,
            excluded.units, excluded.customers, excluded.first_sold_at, excluded.last_sold_at
        )
        where (stored.*) is distinct from (excluded.*)
        returning device_id
    )
    select (select count(*) from summed), (select count(*) from removed) + (select count(*) from written)
    into groups_read, rows_written;

    return next row(
        'scout_gold.daily_transactions', groups_read, rows_written, groups_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout_gold.refresh_daily_transactions is
    'Recomputes the devices'' days that are due, whichever loads touched them. May be run again; then it finds none.';
