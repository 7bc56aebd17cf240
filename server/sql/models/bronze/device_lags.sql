-- Grain: one row per device and kind of lag that was measured in the last day, and one per kind for all devices
-- together, with device_id null. What it costs follows the rows of a day.
create or replace function scout_bronze.lag_bounds_s() returns integer[]
language sql immutable parallel safe
return array[
    1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600, 21600, 86400, 604800, 2592000, 315360000
];
comment on function scout_bronze.lag_bounds_s is
    'Upper bounds of the buckets in which scout_bronze.lags counts, in seconds: from one second to ten years.';

create or replace view scout_bronze.device_lags as
with counted as (
    select
        device_id,
        kind,
        below_s,
        sum(rows) filter (where hour >= date_trunc('hour', now() - interval '1 hour', 'UTC')) as of_hour,
        sum(rows) as of_day
    from scout_bronze.lags
    where hour >= date_trunc('hour', now() - interval '1 day', 'UTC')
    group by grouping sets ((device_id, kind, below_s), (kind, below_s))
),

summed as (
    select
        counted.*,
        sum(of_hour) over up_to_bound as below_of_hour,
        sum(of_day) over up_to_bound as below_of_day,
        sum(of_hour) over whole as all_of_hour,
        sum(of_day) over whole as all_of_day
    from counted
    window
        whole as (partition by device_id, kind),
        up_to_bound as (partition by device_id, kind order by below_s)
)
select
    device_id,
    kind,
    coalesce(max(all_of_hour), 0) as rows_last_hour,
    max(all_of_day) as rows_last_day,
    min(below_s) filter (where below_of_hour >= 0.95 * all_of_hour) as p95_last_hour_s,
    min(below_s) filter (where below_of_day >= 0.95 * all_of_day) as p95_last_day_s
from summed
group by device_id, kind;
comment on view scout_bronze.device_lags is
    'Within how many seconds 95 of 100 rows came: one row per device and kind of lag, and per kind for all devices
     (device_id null). It is the upper bound of their bucket in scout_bronze.lags. Hours are counted whole: the last
     hour is the present one with the one before, the last day those with the 23 before them. Null where none was
     measured.';
