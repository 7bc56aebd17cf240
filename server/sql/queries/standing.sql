-- devices -- each device, or one, with what it reported last; ages by the database's clock alone
select
    devices.device_id,
    devices.source,
    devices.added_at,
    devices.revoked_at,
    heartbeats.heard_at,
    now() as at,
    scout_edge.reported_text(said.version) as version,
    scout_edge.reported_text(said.clock) as clock,
    scout_edge.reported_text(said.sent_at) as sent_at,
    scout_edge.reported_text(said.oldest_unsettled_at) as oldest_unsettled_at,
    scout_edge.reported_text(said.token_expires_at) as reported_token_expires_at,
    issued.expires_at as token_expires_at,
    scout_edge.reported_count(said.waiting_rows) as waiting_rows,
    scout_edge.reported_count(said.accepted_rows) as accepted_rows,
    scout_edge.reported_count(said.set_aside_rows) as set_aside_rows,
    scout_edge.reported_count(said.spool_bytes) as spool_bytes,
    scout_edge.reported_count(said.disk_free_bytes) as disk_free_bytes
from scout_edge.devices
left join scout_edge.heartbeats using (device_id)
-- One look into the report for all of them: a long one is stored compressed.
left join lateral jsonb_to_record(
    case when jsonb_typeof(heartbeats.report) = 'object' then heartbeats.report end
) as said (
    version jsonb,
    clock jsonb,
    sent_at jsonb,
    oldest_unsettled_at jsonb,
    token_expires_at jsonb,
    waiting_rows jsonb,
    accepted_rows jsonb,
    set_aside_rows jsonb,
    spool_bytes jsonb,
    disk_free_bytes jsonb
) on true
left join scout_edge.newest_tokens as issued using (device_id)
where %(device_id)s::text is null or devices.device_id = %(device_id)s
order by devices.device_id

-- road -- what waits on its way from the bucket to silver: the queues alone, never what has passed
select
    now() as at,
    found.objects as objects_waiting,
    extract(epoch from now() - found.oldest_at)::float8 as objects_oldest_s,
    found.retried as objects_retried,
    due.rows as rows_waiting,
    extract(epoch from now() - due.oldest_at)::float8 as rows_oldest_s,
    due.failed as loads_failed,
    settings.renewals_held_since,
    settings.backed_up_at
from (
    select count(*) as objects, min(found_at) as oldest_at, count(*) filter (where tries > 0) as retried
    from (
        select found_at, tries from scout_bronze.files where state = 'found' order by file_id limit %(counted_max)s
    ) as bounded
) as found
cross join (
    select
        coalesce(sum(rows), 0)::bigint as rows,
        min(committed_at) filter (where error is null) as oldest_at,
        count(*) filter (where error is not null) as failed
    from (
        select rows, committed_at, error from scout_bronze.loads order by load_id limit %(counted_max)s
    ) as bounded
) as due
cross join scout_edge.settings

-- lags -- within what time 95 of 100 rows came, of all devices together
select kind, rows_last_hour::bigint, rows_last_day::bigint, p95_last_hour_s, p95_last_day_s
from scout_bronze.device_lags
where device_id is null

-- take_at_most -- ends what takes longer than this, until the end of the transaction
select set_config('statement_timeout', %(ms)s, true)

-- missing -- per epoch the sales that nobody holds: reads the index entries of every row of bronze
select
    device_id,
    epoch,
    least(sum(seqs), 1000000000000)::bigint as sales,
    count(*) as runs,
    min(first_seq) as first_seq,
    max(last_seq) as last_seq,
    least(coalesce(sum(seqs) filter (where lost_on_device), 0), 1000000000000)::bigint as lost_on_device
from scout_bronze.gaps
where why is null
group by device_id, epoch
order by device_id, epoch

-- forks -- per epoch the sales that a copied spool delivered under numbers that were given before
select
    device_id,
    epoch,
    count(*) as sales,
    min(seq) as first_seq,
    max(seq) as last_seq,
    min(seen_at) as first_seen_at,
    max(seen_at) as last_seen_at
from scout_bronze.forks
group by device_id, epoch
order by device_id, epoch

-- refused -- per device what is held and waits for a decision
select quarantine.device_id, quarantine.kind, count(*)
from scout_bronze.quarantine
join scout_bronze.files using (file_id)
where outcome is null and (kind = 'line' or files.state = 'quarantined')
group by quarantine.device_id, quarantine.kind

-- history -- what a device reported, hour by hour
select
    extract(epoch from heard_at)::float8 as at_s,
    scout_edge.reported_count(report -> 'waiting_rows') as waiting_rows,
    scout_edge.reported_text(report -> 'sent_at') as sent_at,
    scout_edge.reported_text(report -> 'oldest_unsettled_at') as oldest_unsettled_at
from scout_edge.heartbeat_history
where device_id = %(device_id)s and hour >= now() - %(hours)s * interval '1 hour' and hour <= now()
order by hour

-- throughput -- sales of a device that came to bronze, hour by hour
select
    extract(epoch from date_trunc('hour', loaded_at, 'UTC'))::float8 as hour_s,
    sum(accepted)::bigint as sales
from scout_bronze.files
where device_id = %(device_id)s and loaded_at >= now() - %(hours)s * interval '1 hour'
group by 1
order by 1
