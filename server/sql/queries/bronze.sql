-- prepare -- an empty staging table, of this session alone
create temporary table if not exists staged (
    raw_id bigint not null default nextval(pg_get_serial_sequence('scout_bronze.transactions_raw', 'raw_id')),
    file_id bigint not null,
    device_id text not null,
    epoch text,
    seq bigint,
    id uuid,
    identity bytea,
    captured_at timestamptz,
    clock text,
    boot text,
    mono_ms bigint,
    payload text,
    extra text,
    claimed_device_id text,
    object_key text not null,
    line integer not null,
    -- Of a refused line, which has no payload.
    place integer,
    reason text,
    raw bytea
) on commit delete rows;
delete from pg_temp.staged;

-- open_files -- a ledger row for each delivery; waits for another transaction that is storing the same one
insert into scout_bronze.files (bucket, key, version, device_id, batch, resend, state)
select *, 'found'
from unnest(
    %(bucket)s::text[], %(key)s::text[], %(version)s::text[], %(device_id)s::text[], %(batch)s::text[],
    %(resend)s::integer[]
) as delivered (bucket, key, version, device_id, batch, resend)
order by bucket, key, version
on conflict (bucket, key, version) do nothing

-- lock_files -- the deliveries' ledger rows, held until the end of the transaction
select files.bucket, files.key, files.version, files.file_id, files.device_id, files.state, files.sha256
from scout_bronze.files
join unnest(%(bucket)s::text[], %(key)s::text[], %(version)s::text[]) as delivered (bucket, key, version)
    using (bucket, key, version)
order by files.bucket, files.key, files.version
for update of files

-- next_load -- the number of this transaction's load
select nextval(pg_get_serial_sequence('scout_bronze.loads', 'load_id'))

-- stage -- the lines as they come, accepted and refused
copy pg_temp.staged (
    file_id, device_id, epoch, seq, id, identity, captured_at, clock, boot, mono_ms, payload, extra,
    claimed_device_id, object_key, line, place, reason, raw
) from stdin

-- unstage -- forgets the lines of what turned out to be unreadable
delete from pg_temp.staged
where file_id = any(%(file_id)s::bigint[])

-- note_former_loads -- which loads brought rows of these files before; says whether any did, of them or of their batches
with taken as (
    select file_id, batch, load_id from scout_bronze.files where file_id = any (%(file_id)s::bigint[])
),
noted as (
    update scout_bronze.files
    set former_loads = coalesce(former_loads, '{}') || load_id
    where file_id in (select file_id from taken where load_id is not null)
        and load_id <> all (coalesce(former_loads, '{}'))
)
select exists (
    select
    from taken
    join scout_bronze.files as other on other.file_id = taken.file_id or other.batch = taken.batch
    where other.load_id is not null
)

-- take_back_places -- rows that were lost from bronze, and that a table beyond has, come back as the rows they were
with former as materialized (
    select taken.file_id, load.load_id
    from scout_bronze.files as taken
    join scout_bronze.files as other on other.file_id = taken.file_id or other.batch = taken.batch
    cross join lateral unnest(coalesce(other.former_loads, '{}') || other.load_id) as load (load_id)
    where taken.file_id = any (%(file_id)s::bigint[])
),
moved as materialized (
    select file_id, raw_id, device_id, epoch, seq, record_id, identity
    from former
    join scout.bronze_edge_raw using (load_id)
    union
    select file_id, raw_id, device_id, epoch, seq, record_id, identity
    from former
    join scout.bronze_transactions_raw using (load_id)
),
by_load as materialized (
    select staged.raw_id as staged_as, moved.raw_id
    from moved
    join pg_temp.staged
        on staged.file_id = moved.file_id
        and staged.reason is null
        and staged.device_id = moved.device_id
        and (
            (staged.id = moved.record_id and staged.epoch = moved.epoch and staged.seq = moved.seq)
            or staged.identity = moved.identity
        )
    where not exists (select from scout_bronze.transactions_raw as raw where raw.raw_id = moved.raw_id)
),
-- Where even production lost them, silver's events are found by the sale.
by_sale as (
    select staged.raw_id as staged_as, event.raw_id
    from pg_temp.staged
    left join scout_edge.devices as device using (device_id)
    cross join lateral (select scout_bronze.payload_object(staged.payload) as object) as parsed
    join scout.silver_edge_events as event
        on event.source_id = coalesce(device.source, staged.device_id)
        and left(event.transaction_id, 200) = left(
            coalesce(scout.said_text(object -> 'transaction_id'), scout.said_text(object -> 'id')), 200
        )
        and event.transaction_id is not null
        and event.device_id = staged.device_id
        and event.epoch = staged.epoch
        and event.seq = staged.seq
        and event.record_id = staged.id
    where staged.file_id = any (%(file_id)s::bigint[])
        and staged.reason is null
        and not exists (select from by_load where by_load.staged_as = staged.raw_id)
        and not exists (select from scout_bronze.transactions_raw as raw where raw.raw_id = event.raw_id)
        and not exists (
            select
            from scout_bronze.transactions_raw as raw
            where raw.device_id = staged.device_id
                and raw.epoch = staged.epoch
                and raw.seq = staged.seq
                and raw.id = staged.id
        )
),
back as (
    -- Of two copies the one that the merge takes: the lower number.
    select distinct on (raw_id) staged_as, raw_id
    from (select staged_as, raw_id from by_load union all select staged_as, raw_id from by_sale) as found
    order by raw_id, staged_as
)
update pg_temp.staged
set raw_id = back.raw_id
from back
where staged.raw_id = back.staged_as

-- merge -- lands what is new, in key order (crossed orders deadlock), and counts it per ledger row
with retired as materialized (
    -- A record at a retired seq is known if production knows its id; another id there is a fork, and new. Each limit
    -- keeps this one look into an index per line, however many rows were retired.
    select staged.raw_id
    from pg_temp.staged
    cross join lateral (
        select retired.seqs
        from scout_bronze.retired
        where retired.device_id = staged.device_id and retired.epoch = staged.epoch
        limit 1
    ) as of_epoch
    cross join lateral (
        select
        from scout.bronze_transactions_raw as production
        where of_epoch.seqs @> staged.seq
            and production.epoch = staged.epoch
            and production.seq = staged.seq
            and production.record_id = staged.id
            and production.device_id = staged.device_id
        limit 1
    ) as moved
    where staged.reason is null
    union all
    select staged.raw_id
    from pg_temp.staged
    cross join lateral (
        select
        from scout_bronze.retired_identities as retired
        where retired.device_id = staged.device_id and retired.identity = staged.identity
        limit 1
    ) as line
    where staged.reason is null
),
landed as (
    insert into scout_bronze.transactions_raw (
        raw_id, load_id, device_id, epoch, seq, id, identity, captured_at, clock, boot, mono_ms, payload, extra,
        claimed_device_id, object_key, line
    )
    overriding system value
    select
        raw_id, %(load_id)s, device_id, epoch, seq, id, identity, captured_at, clock, boot, mono_ms, payload,
        extra, claimed_device_id, object_key, line
    from pg_temp.staged
    where reason is null
        and not exists (select from retired where retired.raw_id = staged.raw_id)
    order by device_id, epoch, seq, id, identity, raw_id
    on conflict do nothing
    returning raw_id
)
select file_id, count(*)
from landed
join pg_temp.staged using (raw_id)
group by file_id

-- record_load -- tells the ETL that there is something to move
insert into scout_bronze.loads (load_id, rows) overriding system value values (%(load_id)s, %(rows)s)

-- quarantine_lines -- holds what was refused as data; a second copy of it is held already
insert into scout_bronze.quarantine (file_id, kind, device_id, epoch, seq, line, place, reason, raw, identity)
select file_id, 'line', device_id, epoch, seq, line, place, reason, raw, identity
from pg_temp.staged
where reason is not null
order by device_id, identity, raw_id
on conflict (device_id, identity) do nothing

-- settle_files -- the ledger rows of what is now held
update scout_bronze.files
set state = 'loaded',
    loaded_at = now(),
    load_id = held.load_id,
    epoch = held.epoch,
    first_seq = held.first_seq,
    last_seq = held.last_seq,
    sha256 = held.sha256,
    bytes = held.bytes,
    lines = held.lines,
    accepted = held.accepted,
    duplicates = held.duplicates,
    rejected = held.rejected,
    reason = null,
    retry_at = null
from unnest(
    %(file_id)s::bigint[], %(load_id)s::bigint[], %(epoch)s::text[], %(first_seq)s::bigint[],
    %(last_seq)s::bigint[], %(sha256)s::text[], %(bytes)s::bigint[], %(lines)s::integer[],
    %(accepted)s::integer[], %(duplicates)s::integer[], %(rejected)s::integer[]
) as held (
    file_id, load_id, epoch, first_seq, last_seq, sha256, bytes, lines, accepted, duplicates, rejected
)
where files.file_id = held.file_id

-- recount -- what these files and the other copies of their batches brought, counted where it is: lost rows may have come
-- back by another copy than the one that brought them first
with touched as (
    select distinct on (other.file_id)
        other.*,
        coalesce(other.former_loads, '{}') || other.load_id as loads
    from scout_bronze.files as taken
    join scout_bronze.files as other on other.file_id = taken.file_id or other.batch = taken.batch
    where taken.file_id = any (%(file_id)s::bigint[]) and other.accepted is not null
),
counted as (
    select
        file_id,
        (
            select count(*)
            from scout_bronze.transactions_raw as raw
            where raw.load_id = any (loads) and raw.device_id = touched.device_id and raw.object_key = touched.key
        ) + coalesce((
            select sum(retired.rows)
            from scout_bronze.retired_rows as retired
            where retired.load_id = any (loads)
                and retired.device_id = touched.device_id
                and retired.object_key = touched.key
        ), 0) as rows
    from touched
)
update scout_bronze.files
set accepted = counted.rows, duplicates = greatest(lines - rejected - counted.rows, 0)
from counted
where files.file_id = counted.file_id and files.accepted <> counted.rows

-- quarantine_object -- the ledger row of an object that can't be read, unless its content is held already
with quarantined as (
    insert into scout_bronze.files as files (bucket, key, version, device_id, batch, resend, state, reason)
    values (
        %(bucket)s, %(key)s, %(version)s, %(device_id)s, %(batch)s, %(resend)s, 'quarantined', %(reason)s
    )
    on conflict (bucket, key, version) do update
    set state = excluded.state, reason = excluded.reason, retry_at = null
    where files.state <> 'loaded'
    returning file_id, device_id, reason
)
insert into scout_bronze.quarantine (file_id, kind, device_id, reason, identity)
select file_id, 'object', device_id, reason, %(identity)s
from quarantined
on conflict (device_id, identity) do nothing
