-- The demo's own counts, written without the project's code.

-- name: is_made
select count(*) from sqlite_master where name = 'batches'

-- name: unsettled
select (select count(*) from batches where state <> 'settled') + (select coalesce(sum(head - sealed_to), 0) from epochs)

-- name: spooled
select line from records

-- name: accepted
select line from records
where exists (
    select 1 from batches
    where accepted_at is not null
      and place between epoch_number * 1000000000000 + first_seq and epoch_number * 1000000000000 + last_seq)

-- name: loads_due
select count(*) from scout_bronze.loads

-- name: layers
select
    (select count(*) from scout_bronze.transactions_raw),
    (select sum((payload::jsonb ->> 'peso_value')::numeric) from scout_bronze.transactions_raw),
    (select count(*) from scout.silver_transactions),
    (select sum(peso_value) from scout.silver_transactions),
    (select sum(transactions)::bigint from scout.gold_daily_revenue),
    (select sum(revenue) from scout.gold_daily_revenue)

-- name: counts
select
    (select count(*) from scout_bronze.gaps),
    (select count(*) from scout_bronze.forks),
    (select coalesce(sum(duplicates), 0) from scout_bronze.files),
    (select count(*) from scout_bronze.quarantine where kind = 'line'),
    (select extract(epoch from max(moved_at - ingested_at))::float from scout.bronze_transactions_raw)

-- name: transaction_ids
select array_agg(payload::jsonb ->> 'transaction_id' order by raw_id), count(distinct (device_id, epoch, seq, id))
from scout_bronze.transactions_raw

-- name: settled_names
select coalesce(json_object_agg(key, sha256), '{}') from scout_bronze.files where state = 'loaded'

-- name: batches
select key, sha256, state, resend from batches

-- name: object_quarantine
select count(*) from scout_bronze.quarantine where kind = 'object'

-- name: ways
select string_agg(distinct bucket, ', ') from scout_bronze.files
