-- list -- what is held, the newest first; an object that was loaded since is none of it
select
    quarantine_id, kind, quarantine.device_id, files.bucket, files.key, quarantine.line, quarantine.seq,
    quarantine.reason, held_at, outcome, ended_at, why, octet_length(raw) as bytes
from scout_bronze.quarantine
join scout_bronze.files using (file_id)
where (%(device_id)s::text is null or quarantine.device_id = %(device_id)s)
    and (%(ended)s or (outcome is null and (kind = 'line' or files.state = 'quarantined')))
order by quarantine_id desc
limit %(limit)s

-- find -- one of them
select
    quarantine_id, kind, quarantine.device_id, files.bucket, files.key, quarantine.line, quarantine.seq,
    quarantine.reason, held_at, outcome, ended_at, why, octet_length(raw) as bytes
from scout_bronze.quarantine
join scout_bronze.files using (file_id)
where quarantine_id = %(quarantine_id)s

-- raw -- what was held, and what was taken in its stead
select raw, edited from scout_bronze.quarantine where quarantine_id = %(quarantine_id)s

-- lock -- a line to replay, held until the end of the transaction
select
    quarantine.kind, quarantine.device_id, files.file_id, files.bucket, files.key, files.version,
    quarantine.epoch, quarantine.seq, quarantine.line, quarantine.place, quarantine.raw, quarantine.held_at,
    files.captured_at, quarantine.outcome
from scout_bronze.quarantine
join scout_bronze.files using (file_id)
where quarantine_id = %(quarantine_id)s
for update of quarantine

-- replayed -- what became of it
update scout_bronze.quarantine
set outcome = 'replayed', ended_at = now(), edited = %(edited)s, replayed_rows = %(rows)s, why = null
where quarantine_id = %(quarantine_id)s

-- discard -- sets these aside for good; what was held stays held
update scout_bronze.quarantine
set outcome = 'discarded', ended_at = now(), why = %(why)s
where quarantine_id = any (%(quarantine_id)s) and outcome is null
returning quarantine_id
