-- days_min -- fewer days than these are not pruned: devices may be asked for what they keep, and so many days more
select keep_for_days + %(days_spare)s from scout_edge.settings

-- due -- what is old enough: how many rows, how old, and how many of them the ETL has not moved or production lacks
select
    now() - %(days)s * interval '1 day' as before,
    count(*) as rows,
    count(*) filter (where raw.epoch is not null) as records,
    count(distinct raw.device_id) as devices,
    min(raw.ingested_at) as oldest_at,
    max(raw.ingested_at) as newest_at,
    count(loads.load_id) as unprocessed,
    count(loads.error) as failed,
    count(*) filter (
        where loads.load_id is null and (edge.raw_id is null or transactions.raw_id is null)
    ) as lacking
from scout_bronze.transactions_raw as raw
left join scout_bronze.loads using (load_id)
left join scout.bronze_edge_raw as edge using (raw_id)
left join scout.bronze_transactions_raw as transactions using (raw_id)
where raw.ingested_at < now() - %(days)s * interval '1 day'

-- oldest -- the next rows that are old enough, from one on: their numbers, and where to go on
with oldest as (
    select ingested_at, raw_id
    from scout_bronze.transactions_raw
    where ingested_at >= %(from_at)s
        and ingested_at < %(before)s
        and (ingested_at, raw_id) > (%(from_at)s, %(from_raw_id)s)
    order by ingested_at, raw_id
    limit %(rows_max)s
)
select array_agg(raw_id order by ingested_at, raw_id), max(ingested_at)
from oldest
having count(*) > 0

-- wait_at_most -- for locks, until the end of the transaction
select set_config('lock_timeout', %(ms)s, true)

-- keep_loaders_out -- until the end of the transaction: one that met a row while it goes would land it once more
lock table scout_bronze.transactions_raw in share row exclusive mode

-- remove -- those that both production tables have and no load awaits, and notes them as retired
with removed as (
    delete from scout_bronze.transactions_raw as raw
    where raw.raw_id = any (%(raw_id)s)
        and exists (select from scout.bronze_edge_raw as edge where edge.raw_id = raw.raw_id)
        and exists (select from scout.bronze_transactions_raw as moved where moved.raw_id = raw.raw_id)
        and not exists (select from scout_bronze.loads where loads.load_id = raw.load_id)
    returning raw.device_id, raw.epoch, raw.seq, raw.identity, raw.object_key, raw.load_id
),
records as (
    insert into scout_bronze.retired as known (device_id, epoch, seqs)
    select device_id, epoch, range_agg(int8range(seq, seq, '[]'))
    from removed
    where epoch is not null
    group by device_id, epoch
    on conflict (device_id, epoch) do update set seqs = known.seqs + excluded.seqs
),
lines_of_others as (
    insert into scout_bronze.retired_identities (device_id, identity)
    select device_id, identity from removed where identity is not null
    on conflict do nothing
),
counts as (
    insert into scout_bronze.retired_rows as known (device_id, object_key, load_id, rows)
    select device_id, object_key, load_id, count(*)
    from removed
    group by device_id, object_key, load_id
    on conflict (device_id, object_key, load_id) do update set rows = known.rows + excluded.rows
)
select count(*) from removed
