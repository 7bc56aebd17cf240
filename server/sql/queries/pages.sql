-- now -- the database's time, by which all ages are told, in seconds since 1970
select extract(epoch from now())::float8

-- recent_files -- of one device, the newest first; what waits for a loader comes before all others
select
    file_id, bucket, key, version, device_id, state, found_at, loaded_at, bytes, lines, accepted, duplicates, rejected,
    reason, tries, retry_at
from scout_bronze.files
where device_id = %(device_id)s
order by loaded_at desc nulls first
limit %(limit)s
