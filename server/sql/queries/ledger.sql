-- list -- ledger rows, the newest first
select
    file_id, bucket, key, version, device_id, state, found_at, loaded_at, bytes, lines, accepted, duplicates, rejected,
    reason, tries, retry_at
from scout_bronze.files
where (%(device_id)s::text is null or device_id = %(device_id)s)
    and (%(state)s::text is null or state = %(state)s)
    and (%(day)s::text is null or starts_with(key, %(day)s || '/'))
order by file_id desc
limit %(limit)s

-- find -- the ledger rows that a number or an object's key names; of a key each version
select
    file_id, bucket, key, version, device_id, state, found_at, loaded_at, bytes, lines, accepted, duplicates, rejected,
    reason, tries, retry_at
from scout_bronze.files
where file_id = %(file_id)s or key = %(key)s
order by file_id

-- rows_held -- how many rows bronze holds now: of a batch's run of seqs, else of those that this file brought
select (
    select count(*)
    from scout_bronze.transactions_raw as raw
    where raw.device_id = files.device_id
        and raw.epoch = files.epoch
        and raw.seq between files.first_seq and files.last_seq
) + (
    select count(*)
    from scout_bronze.transactions_raw as raw
    where files.epoch is null
        and raw.load_id = any (coalesce(files.former_loads, '{}') || files.load_id)
        and raw.object_key = files.key
)
from scout_bronze.files
where files.file_id = %(file_id)s

-- lines_held -- the lines of a file that are held in quarantine
select quarantine_id, line, reason, outcome
from scout_bronze.quarantine
where file_id = %(file_id)s and kind = 'line'
order by line, quarantine_id
limit %(limit)s

-- make_due -- lets loaders take these objects once more; what they brought stays
update scout_bronze.files
set state = 'found', tries = 0, retry_at = null
where file_id = any (%(file_id)s) and state <> 'found'
