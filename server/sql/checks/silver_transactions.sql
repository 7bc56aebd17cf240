-- Every readable bronze row is the latest version or an earlier one of exactly one sale: the one that it tells of.
with told as (
    select
        raw_id,
        coalesce(source_id, device_id, '') as source_id,
        scout.transaction_key(
            scout.said_text(told.transaction_id),
            epoch, seq, record_id, coalesce(identity, int8send(raw_id))
        ) as transaction_key
    from scout.bronze_transaction_rows
    cross join lateral scout.told_event(payload) as told
),
kept as (
    select raw_id, source_id, transaction_key from scout.silver_transactions
    union all
    select raw_id, source_id, transaction_key from scout.silver_transaction_versions
)
select coalesce(told.raw_id, kept.raw_id) as raw_id
from told
full join kept using (raw_id, source_id, transaction_key)
group by coalesce(told.raw_id, kept.raw_id)
having count(*) <> 1 or count(told.raw_id) <> 1 or count(kept.raw_id) <> 1
