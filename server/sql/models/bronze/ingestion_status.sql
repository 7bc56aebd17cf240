-- Grain: one row per device that is known or ever delivered.
-- Rows are counted by the ledger, which committed with them: no row of the landing table is read but those that wait.
drop view if exists scout_bronze.ingestion_status;
create view scout_bronze.ingestion_status as
with delivered as (
    select
        device_id,
        count(*) filter (where state = 'found') as files_waiting,
        count(*) filter (where state = 'loaded') as files_loaded,
        count(*) filter (where state = 'quarantined' and not is_discarded) as files_quarantined,
        sum(accepted) as rows_loaded,
        sum(duplicates) as rows_duplicate,
        sum(rejected) as rows_refused,
        sum(accepted) filter (where loaded_at > now() - interval '1 minute') as rows_last_minute,
        sum(accepted) filter (where loaded_at > now() - interval '1 hour') as rows_last_hour,
        sum(accepted) filter (where loaded_at > now() - interval '1 day') as rows_last_day,
        min(loaded_at) as first_loaded_at,
        max(loaded_at) as last_loaded_at,
        (array_agg(reason order by file_id desc) filter (where reason is not null and not is_discarded))[1] as file_error
    from scout_bronze.files
    cross join lateral (
        select files.state = 'quarantined' and exists (
            select
            from scout_bronze.quarantine
            where quarantine.file_id = files.file_id and kind = 'object' and outcome = 'discarded'
        ) as is_discarded
    ) as judged
    group by device_id
),

-- Lines that were refused, and that an operator then made rows of.
replayed as (
    select
        device_id,
        count(*) as lines,
        sum(replayed_rows) as rows,
        sum(replayed_rows) filter (where ended_at > now() - interval '1 minute') as rows_last_minute,
        sum(replayed_rows) filter (where ended_at > now() - interval '1 hour') as rows_last_hour,
        sum(replayed_rows) filter (where ended_at > now() - interval '1 day') as rows_last_day,
        max(ended_at) filter (where replayed_rows > 0) as last_at
    from scout_bronze.quarantine
    where outcome = 'replayed' and kind = 'line'
    group by device_id
),

waiting as (
    select
        raw.device_id,
        count(*) as rows_waiting,
        now() - min(loads.committed_at) as lag,
        (array_agg(loads.error order by loads.tried_at desc) filter (where loads.error is not null))[1] as load_error
    from scout_bronze.loads
    join scout_bronze.transactions_raw as raw using (load_id)
    group by raw.device_id
)
select
    device_id,
    coalesce(devices.source, device_id) as source,
    coalesce(delivered.files_waiting, 0) as files_waiting,
    coalesce(delivered.files_loaded, 0) as files_loaded,
    coalesce(delivered.files_quarantined, 0) as files_quarantined,
    coalesce(delivered.rows_loaded, 0) + coalesce(replayed.rows, 0) as rows_loaded,
    coalesce(delivered.rows_duplicate, 0) as rows_duplicate,
    coalesce(delivered.rows_refused, 0) - coalesce(replayed.lines, 0) as rows_refused,
    coalesce(delivered.rows_last_minute, 0) + coalesce(replayed.rows_last_minute, 0) as rows_last_minute,
    coalesce(delivered.rows_last_hour, 0) + coalesce(replayed.rows_last_hour, 0) as rows_last_hour,
    coalesce(delivered.rows_last_day, 0) + coalesce(replayed.rows_last_day, 0) as rows_last_day,
    coalesce(waiting.rows_waiting, 0) as rows_waiting,
    coalesce(waiting.lag, interval '0') as lag,
    delivered.first_loaded_at,
    greatest(delivered.last_loaded_at, replayed.last_at) as last_loaded_at,
    coalesce(waiting.load_error, delivered.file_error) as last_error,
    etl_lag.p95_last_hour_s as etl_lag_p95_s,
    etl_lag.p95_last_day_s as etl_lag_p95_day_s,
    capture_lag.p95_last_hour_s as capture_lag_p95_s,
    capture_lag.p95_last_day_s as capture_lag_p95_day_s
from scout_edge.devices
full join delivered using (device_id)
left join replayed using (device_id)
full join waiting using (device_id)
left join (select * from scout_bronze.device_lags where kind = 'etl') as etl_lag using (device_id)
left join (select * from scout_bronze.device_lags where kind = 'capture') as capture_lag using (device_id)
order by device_id;
comment on view scout_bronze.ingestion_status is
    'How far each device''s sales have come: one row per device, with the source they count under. Files are objects and
     posts; rows those that they brought and that were replayed out of quarantine, also since removed from bronze after
     production. Waiting files are found and not loaded, waiting rows are in bronze and not in silver, and `lag` is how
     long the oldest of them has waited since bronze committed it. The lags of what did arrive are those of 95 of 100
     rows, in seconds, of the last hour or day (scout_bronze.device_lags): etl_lag from bronze''s commit to gold,
     capture_lag from the sale to bronze.';
