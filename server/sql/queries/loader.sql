-- due_awaited -- names that devices await and that were not looked up lately, longest ago first
select device_id, key, resend
from scout_edge.awaited
where checked_at is null or checked_at < now() - %(absent_s)s * interval '1 second'
order by checked_at nulls first
limit %(names_max)s

-- discover -- notes the objects that the ledger does not have yet
insert into scout_bronze.files (bucket, key, version, device_id, bytes, batch, resend, state)
select %(bucket)s, key, version, device_id, bytes, batch, resend, 'found'
from unnest(
    %(key)s::text[], %(version)s::text[], %(device_id)s::text[], %(bytes)s::bigint[], %(batch)s::text[],
    %(resend)s::integer[]
) as listed (key, version, device_id, bytes, batch, resend)
where not exists (
    select
    from scout_bronze.files
    where files.bucket = %(bucket)s and files.key = listed.key and files.version = listed.version
)
order by key, version
on conflict (bucket, key, version) do nothing

-- waiting -- how many objects there are to claim
select count(*)
from scout_bronze.files
where state = 'found'
    and bucket = %(bucket)s
    and (retry_at is null or retry_at <= now())
    and starts_with(key, %(prefix)s)

-- claim -- objects to load that no other loader is at, held until the end of the transaction
select file_id, key, version, device_id, coalesce(bytes, 0), captured_at
from scout_bronze.files
where state = 'found'
    and bucket = %(bucket)s
    and (retry_at is null or retry_at <= now())
    and starts_with(key, %(prefix)s)
order by file_id
limit %(objects_max)s
for update skip locked

-- claim_one -- the same, one object
select file_id, key, version, device_id, coalesce(bytes, 0), captured_at
from scout_bronze.files
where file_id = %(file_id)s and state = 'found'
for update skip locked

-- take_time -- lets a COPY last as long as the bucket takes to give its objects, until the end of the transaction
set local statement_timeout = 0

-- postpone -- counts a failed try; the next is due after a minute, then two, four, at most a day
update scout_bronze.files
set tries = tries + 1,
    reason = %(reason)s,
    retry_at = now() + least(interval '1 minute' * 2 ^ least(tries, 20), interval '1 day')
where file_id = %(file_id)s and state = 'found'

-- forget_settled -- strikes, of the names looked up, those that the ledger covers
with looked_up as (
    select awaited.device_id, awaited.key
    from scout_edge.awaited
    join unnest(%(device_id)s::text[], %(key)s::text[]) as due (device_id, key) using (device_id, key)
    for update of awaited skip locked
)
delete from scout_edge.awaited
using looked_up
where awaited.device_id = looked_up.device_id
    and awaited.key = looked_up.key
    and scout_bronze.is_settled(looked_up.device_id, looked_up.key)

-- ask_again -- asks the device for a copy of what is damaged, or absent for longer than it takes to appear
with looked_up as (
    select awaited.device_id, awaited.key, awaited.asked_at, awaited.resend, awaited.resend_at
    from scout_edge.awaited
    join unnest(%(device_id)s::text[], %(key)s::text[]) as due (device_id, key) using (device_id, key)
    for update of awaited skip locked
),

judged as (
    select
        looked_up.device_id,
        looked_up.key,
        greatest(looked_up.resend, ledger.resend_max) as resend,
        -- What waits for a loader is neither damaged nor absent.
        not ledger.is_waiting
        and (
            ledger.damaged_max >= looked_up.resend
            or case
                when looked_up.resend = 0
                    then looked_up.asked_at <= now() - %(absent_s)s * interval '1 second'
                else looked_up.resend_at <= now() - %(resend_s)s * interval '1 second'
            end
        ) as again
    from looked_up
    cross join lateral (
        select
            coalesce(bool_or(files.state = 'found'), false) as is_waiting,
            coalesce(max(files.resend) filter (where files.state in ('quarantined', 'gone')), -1) as damaged_max,
            coalesce(max(files.resend), 0) as resend_max
        from scout_bronze.files
        where files.batch = regexp_replace(looked_up.key, '-r[0-9]+[.]jsonl[.]gz$', '.jsonl.gz')
            and files.device_id = looked_up.device_id
    ) as ledger
)
update scout_edge.awaited
set checked_at = now(),
    resend = case when judged.again then judged.resend + 1 else awaited.resend end,
    resend_at = case when judged.again then now() else awaited.resend_at end
from judged
where awaited.device_id = judged.device_id and awaited.key = judged.key
returning judged.again
