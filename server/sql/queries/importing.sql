-- known_devices -- which of these devices exist
select device_id from scout_edge.devices where device_id = any (%(device_id)s)

-- owners -- the device that reported each of these epochs as its own
select epoch, device_id from scout_edge.heads where epoch = any (%(epoch)s)

-- now -- the database's time
select clock_timestamp()

-- outcomes -- what became of objects of the bucket: the newest version of each, and whether that was before
select distinct on (files.key)
    files.key,
    files.state,
    files.reason,
    coalesce(files.loaded_at < %(began)s, false),
    coalesce(files.accepted, 0),
    coalesce(files.duplicates, 0),
    coalesce(files.rejected, 0)
from scout_bronze.files
where files.bucket = %(bucket)s and files.key = any (%(key)s)
order by files.key, files.file_id desc

-- note_times -- when imported files were written, in the ledger rows by which a loader finds them
insert into scout_bronze.files as files (bucket, key, version, device_id, captured_at, state)
select %(bucket)s, key, version, device_id, captured_at, 'found'
from unnest(
    %(key)s::text[], %(version)s::text[], %(device_id)s::text[], %(captured_at)s::timestamptz[]
) as imported (key, version, device_id, captured_at)
order by key, version
on conflict (bucket, key, version) do update
set captured_at = excluded.captured_at
where files.state = 'found' and files.captured_at is null
