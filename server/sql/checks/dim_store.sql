-- Every store that a version of a sale named is there, and described as its newest sales describe it.
with named as (
    select store_id from scout.silver_transactions where store_id is not null
    union
    select store_id from scout.silver_transaction_versions where store_id is not null
),
place as (
    select distinct on (store_id) store_id, region, province, city, barangay
    from scout.silver_transactions
    where coalesce(region, province, city, barangay) is not null
    order by store_id, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
),
kind as (
    select distinct on (store_id) store_id, store_type
    from scout.silver_transactions
    where store_type is not null
    order by store_id, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
)
select store_id
from named
left join place using (store_id)
left join kind using (store_id)
left join scout.dim_store as store using (store_id)
where store.time_zone is null
    or (kind.store_type, place.region, place.province, place.city, place.barangay)
        is distinct from (store.store_type, store.region, store.province, store.city, store.barangay)
