-- Step of the ETL. Grain: one row per business day, device and sku with sales. Reads scout.silver_revenue_lines, of
-- the devices' days that are due only. By how much it changed, scout.product_growth tells
-- scout_gold.product_insights.
create or replace function scout.refresh_product_days(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    rows_read bigint;
    rows_written bigint;
begin
    with due as (
        delete from scout.groups_due where target = 'product_days' returning day as business_day, member as device_id
    ),
    device_day as materialized (
        select distinct business_day, device_id from due
    ),
    -- `offset 0`, twice: looked up device's day by device's day, however many there are.
    sold as materialized (
        select device_day.business_day, device_day.device_id, lines.*
        from device_day
        cross join lateral (
            select
                line.sku,
                count(distinct line.raw_id) as transactions,
                sum(line.qty) as quantity,
                sum(line.revenue) as revenue
            from scout.silver_revenue_lines as line
            where coalesce(line.device_id, 'unknown') = device_day.device_id
                and line.business_day = device_day.business_day
            group by line.sku
            offset 0
        ) as lines
    ),
    stored as materialized (
        select product_day.*
        from device_day
        cross join lateral (
            select *
            from scout.product_days
            where product_days.business_day = device_day.business_day and product_days.device_id = device_day.device_id
            offset 0
        ) as product_day
    ),
    -- Without transactions where nothing of it is left.
    changed as materialized (
        select
            business_day,
            device_id,
            sku,
            sold.transactions,
            sold.quantity,
            sold.revenue,
            coalesce(sold.transactions, 0) - coalesce(stored.transactions, 0) as transactions_growth,
            coalesce(sold.quantity, 0) - coalesce(stored.quantity, 0) as quantity_growth,
            coalesce(sold.revenue, 0) - coalesce(stored.revenue, 0) as revenue_growth
        from sold
        full join stored using (business_day, device_id, sku)
        where (sold.transactions, sold.quantity, sold.revenue)
            is distinct from (stored.transactions, stored.quantity, stored.revenue)
    ),
    removed as (
        delete from scout.product_days
        using changed
        where changed.transactions is null
            and product_days.business_day = changed.business_day
            and product_days.device_id = changed.device_id
            and product_days.sku = changed.sku
    ),
    written as (
        insert into scout.product_days (business_day, device_id, sku, transactions, quantity, revenue)
        select business_day, device_id, sku, transactions, quantity, revenue
        from changed
        where transactions is not null
        on conflict (business_day, device_id, sku) do update set
            (transactions, quantity, revenue) = (excluded.transactions, excluded.quantity, excluded.revenue)
    ),
    passed_on as (
        insert into scout.product_growth (sku, transactions, quantity, revenue)
        select sku, sum(transactions_growth), sum(quantity_growth), sum(revenue_growth)
        from changed
        group by sku
    )
    select
        (select count(*) from sold) + (select count(*) from changed where transactions is null),
        (select count(*) from changed)
    into rows_read, rows_written;

    return next row(
        'scout.product_days', rows_read, rows_written, rows_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_product_days is
    'Recomputes what was sold on the devices'' days that are due, whichever loads touched them. May be run again; then
     it finds none.';
