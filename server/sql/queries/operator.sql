-- alive -- whether the database answers
select 1

-- begin_generation -- a new life of this database: every device asks again about all batches that it keeps
update scout_edge.settings set generation = gen_random_uuid() returning generation

-- devices_heard -- how many devices have ever called home, and when the last one did
select count(*), max(heard_at) from scout_edge.heartbeats

-- ingestion_status -- how far each device's sales have come, for a terminal
select
    device_id, source, files_waiting, files_loaded, files_quarantined, rows_loaded::bigint, rows_duplicate::bigint,
    rows_refused::bigint, rows_last_minute::bigint, rows_last_hour::bigint, rows_last_day::bigint, rows_waiting,
    extract(epoch from lag)::float8 as lag_s, etl_lag_p95_s, etl_lag_p95_day_s, capture_lag_p95_s, capture_lag_p95_day_s,
    first_loaded_at, last_loaded_at, last_error,
    device_id in (select device_id from scout_edge.silent_devices) as is_silent
from scout_bronze.ingestion_status
