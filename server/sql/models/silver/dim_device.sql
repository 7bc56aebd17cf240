-- Grain: one row per device that delivered any version of a sale. Reads scout.silver_transactions, and for a device
-- all of whose sales were told anew by others scout.silver_transaction_versions.
create or replace function scout.refresh_dim_device(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    devices_read bigint;
    devices_written bigint;
begin
    with touched as materialized (
        select distinct device_id
        from scout.touched_versions(loads)
        where device_id is not null
    ),
    described as materialized (
        select touched.device_id, coalesce(newest.source_id, replaced.source_id) as source_id, newest.store_id
        from touched
        left join lateral (
            select source_id, store_id
            from scout.silver_transactions as sale
            where sale.device_id = touched.device_id
            -- One that names a store before all that name none.
            order by
                store_id is null, sold_at desc nulls last, transaction_key collate "C" desc,
                source_id collate "C" desc
            limit 1
        ) as newest on true
        left join lateral (
            select max(source_id collate "C") as source_id
            from scout.silver_transaction_versions as version
            where newest.source_id is null and version.device_id = touched.device_id
        ) as replaced on true
    ),
    written as (
        insert into scout.dim_device as device (device_id, source_id, store_id)
        select device_id, source_id, store_id from described
        on conflict (device_id) do update set (source_id, store_id) = (excluded.source_id, excluded.store_id)
        where (device.source_id, device.store_id) is distinct from (excluded.source_id, excluded.store_id)
        returning device_id
    )
    select (select count(*) from touched), (select count(*) from written)
    into devices_read, devices_written;

    return next row(
        'scout.dim_device', devices_read, devices_written, devices_read - devices_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_device is
    'Describes anew the devices of the sales that these loads touched. Run it after
     scout.refresh_silver_transactions for the same loads; it may be run again.';
