-- Grain: one row per row of the production bronze table, each with a raw_id.
-- Rows that were adopted from an earlier deployment came by no landing table: they count by their own number,
-- below zero, so that silver can name them and no row of bronze had to be rewritten.
drop view if exists scout.bronze_edge_rows;
create view scout.bronze_edge_rows as
select
    coalesce(raw_id, -id) as raw_id,
    load_id,
    source_id,
    device_id,
    epoch,
    seq,
    record_id,
    identity,
    captured_at,
    clock,
    boot,
    mono_ms,
    src_filename,
    line,
    claimed_device_id,
    ingested_at,
    -- Ours are objects or null; what another deployment took in may be anything.
    case when raw_id is not null or jsonb_typeof(payload) = 'object' then payload end as payload,
    payload_text
from scout.bronze_edge_raw;
comment on view scout.bronze_edge_rows is 'scout.bronze_edge_raw with a raw_id for adopted rows, too: below zero.';

drop view if exists scout.bronze_transaction_rows;
create view scout.bronze_transaction_rows as
select
    coalesce(raw_id, -ingest_id) as raw_id,
    load_id,
    source_id,
    device_id,
    epoch,
    seq,
    record_id,
    identity,
    captured_at,
    clock,
    boot,
    mono_ms,
    object_key,
    line,
    claimed_device_id,
    ingested_at,
    -- Ours are objects or null; what another deployment took in may be anything.
    case when raw_id is not null or jsonb_typeof(payload) = 'object' then payload end as payload,
    payload_text
from scout.bronze_transactions_raw;
comment on view scout.bronze_transaction_rows is
    'scout.bronze_transactions_raw with a raw_id for adopted rows, too: below zero.';
