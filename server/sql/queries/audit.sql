-- one_moment -- everything that this transaction reads, it reads as of its first query
set transaction isolation level repeatable read read only

-- epochs -- where each seq up to the head is: counts, and the runs that nobody holds
select
    custody.device_id, custody.epoch, head, bronze, quarantined, retired, unsettled, accepted, lost, missing, above_head,
    missing_seqs as missing_runs, lost_seqs as lost_runs, coalesce(repairs.tries, 0) as tries,
    repairs.next_at as next_try_at
from scout_bronze.custody
left join scout_bronze.repairs using (device_id, epoch)
where (%(device_id)s::text is null or custody.device_id = %(device_id)s)
    and (%(since)s::date is null or last_heard_at >= %(since)s::date at time zone 'UTC')
order by custody.device_id, custody.epoch

-- sums -- per device and day (UTC) on which the ledger first knew of what was delivered: what each layer has of it
with ledger as (
    select
        device_id,
        key,
        min(found_at) as found_at,
        sum(accepted + coalesce(replayed.rows, 0)) as rows,
        sum(coalesce(scout_bronze.seqs_in(given_up.seqs * run.seqs), 0)) as accepted_max
    from scout_bronze.files
    left join (
        select file_id, sum(replayed_rows) as rows
        from scout_bronze.quarantine
        where outcome = 'replayed'
        group by file_id
    ) as replayed using (file_id)
    left join (
        select device_id, epoch, range_agg(seqs) as seqs from scout_bronze.accepted_gaps group by device_id, epoch
    ) as given_up using (device_id, epoch)
    cross join lateral (select int8multirange(int8range(first_seq, last_seq, '[]')) as seqs) as run
    where accepted is not null and (%(device_id)s::text is null or device_id = %(device_id)s)
    group by device_id, key
),

landed as (
    select
        raw.device_id,
        raw.object_key as key,
        min(raw.ingested_at) as ingested_at,
        count(*) as rows,
        count(loads.load_id) as waiting
    from scout_bronze.transactions_raw as raw
    left join scout_bronze.loads using (load_id)
    where %(device_id)s::text is null or raw.device_id = %(device_id)s
    group by raw.device_id, raw.object_key
),

retired as (
    select device_id, object_key as key, sum(rows) as rows
    from scout_bronze.retired_rows
    where %(device_id)s::text is null or device_id = %(device_id)s
    group by device_id, object_key
),

-- The rows that a layer lacks are few: looking for them costs half of what counting all it has would.
lacking as (
    select raw.device_id, raw.object_key as key, sum(edge) as edge, sum(production) as production, sum(silver) as silver
    from (
        select raw_id, 1 as edge, 0 as production, 0 as silver
        from scout_bronze.transactions_raw as raw
        where (%(device_id)s::text is null or device_id = %(device_id)s)
            and not exists (select from scout.bronze_edge_raw as edge where edge.raw_id = raw.raw_id)
        union all
        select raw_id, 0, 1, 0
        from scout_bronze.transactions_raw as raw
        where (%(device_id)s::text is null or device_id = %(device_id)s)
            and not exists (
                select from scout.bronze_transactions_raw as production where production.raw_id = raw.raw_id
            )
        union all
        select raw_id, 0, 0, 1
        from scout_bronze.transactions_raw as raw
        where (%(device_id)s::text is null or device_id = %(device_id)s)
            and not exists (select from scout.silver_edge_events as event where event.raw_id = raw.raw_id)
    ) as lacked
    join scout_bronze.transactions_raw as raw using (raw_id)
    where not exists (select from scout_bronze.loads where loads.load_id = raw.load_id)
    group by raw.device_id, raw.object_key
),

per_delivery as (
    select
        device_id,
        (coalesce(ledger.found_at, landed.ingested_at) at time zone 'UTC')::date as day,
        coalesce(ledger.rows, 0) as ledger,
        coalesce(landed.rows, 0) as bronze,
        coalesce(retired.rows, 0) as retired,
        -- Of what is in the ledger and neither in bronze nor retired, as much as was accepted of its run.
        least(short.rows, accepted_max) as accepted,
        coalesce(landed.waiting, 0) as waiting,
        coalesce(lacking.edge, 0) as edge,
        coalesce(lacking.production, 0) as production,
        coalesce(lacking.silver, 0) as silver
    from ledger
    full join landed using (device_id, key)
    left join retired using (device_id, key)
    left join lacking using (device_id, key)
    cross join lateral (
        select greatest(ledger.rows - coalesce(landed.rows, 0) - coalesce(retired.rows, 0), 0) as rows
    ) as short
)
select
    device_id,
    day,
    sum(ledger)::bigint as ledger,
    sum(bronze)::bigint as bronze,
    sum(retired)::bigint as retired,
    coalesce(sum(accepted), 0)::bigint as accepted,
    sum(waiting)::bigint as waiting,
    sum(bronze - waiting - edge)::bigint as edge,
    sum(bronze - waiting - production)::bigint as production,
    sum(bronze - waiting - silver)::bigint as silver
from per_delivery
where %(since)s::date is null or day >= %(since)s::date
group by device_id, day
order by device_id, day

-- forks -- per epoch the runs of seqs at which more than one record came
select device_id, epoch, range_agg(int8range(seq, seq, '[]')) as seqs, count(*) as records, max(seen_at) as seen_at
from scout_bronze.forks
where (%(device_id)s::text is null or device_id = %(device_id)s)
    and (%(since)s::date is null or seen_at >= %(since)s::date at time zone 'UTC')
group by device_id, epoch
order by device_id, epoch

-- silent -- devices that should have spoken
select
    device_id,
    heard_at,
    extract(epoch from silent_for)::float8 as silent_s,
    extract(epoch from usual_pause)::float8 as usual_pause_s
from scout_edge.silent_devices
where %(device_id)s::text is null or device_id = %(device_id)s
order by device_id

-- alarms -- what devices report that can't be so; one that was revoked reports nothing any more
select device_id, kind, detail, first_seen_at, last_seen_at
from scout_edge.alarms
join scout_edge.devices using (device_id)
where resolved_at is null
    and revoked_at is null
    and (%(device_id)s::text is null or device_id = %(device_id)s)
order by device_id, kind

-- said -- what devices said last of their unsettled records
select
    device_id,
    coalesce(scout_edge.reported_count(report -> 'waiting_rows'), 0),
    coalesce(scout_edge.reported_count(report -> 'accepted_rows'), 0),
    coalesce(scout_edge.reported_count(report -> 'set_aside_rows'), 0)
from scout_edge.heartbeats
where %(device_id)s::text is null or device_id = %(device_id)s

-- gaps -- runs that nobody holds; with `accepted`, also those that an operator accepted
select device_id, epoch, first_seq, last_seq, seqs, lost_on_device, why, accepted_at
from scout_bronze.gaps
where (%(device_id)s::text is null or device_id = %(device_id)s) and (%(accepted)s or why is null)
order by device_id, epoch, first_seq

-- lock_acceptances -- one operator at a time: no seq is accepted twice
lock table scout_bronze.accepted_gaps in share row exclusive mode

-- accept -- of this run what is missing now
with asked as (
    select
        device_id,
        epoch,
        (missing_seqs + lost_seqs) * int8multirange(int8range(%(first_seq)s, %(last_seq)s, '[]')) as seqs
    from scout_bronze.custody
    where device_id = %(device_id)s and epoch = %(epoch)s
)
insert into scout_bronze.accepted_gaps (device_id, epoch, seqs, why)
select device_id, epoch, seqs, %(why)s from asked where seqs <> '{}'
returning scout_bronze.seqs_in(seqs)
