-- Every bronze row has its sale, and every sale is one that some bronze row tells of.
with told as (
    select distinct
        source_id,
        scout.transaction_key(
            coalesce(scout.said_text(payload -> 'transaction_id'), scout.said_text(payload -> 'id')),
            epoch, seq, record_id, identity
        ) as transaction_key
    from scout.bronze_transactions_raw
)
select source_id, coalesce(told.transaction_key, sale.transaction_key) as transaction_key
from told
full join scout.silver_transactions as sale using (source_id, transaction_key)
where told.transaction_key is null or sale.transaction_key is null
