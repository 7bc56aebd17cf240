-- Every device that delivered a version of a sale is there, with the source and the store of its newest sale.
with delivered as (
    select device_id from scout.silver_transactions where device_id is not null
    union
    select device_id from scout.silver_transaction_versions where device_id is not null
),
newest as (
    select distinct on (device_id) device_id, source_id, store_id
    from scout.silver_transactions
    order by
        device_id, store_id is null, sold_at desc nulls last, transaction_key collate "C" desc,
        source_id collate "C" desc
)
select device_id
from delivered
left join newest using (device_id)
left join scout.dim_device as device using (device_id)
where device.source_id is null
    or device.source_id <> newest.source_id
    or device.store_id is distinct from newest.store_id
