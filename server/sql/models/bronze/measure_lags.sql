-- Step of the ETL, its last one: how long each row took that it has just moved. Commits nothing by itself: from here to
-- the end of the transaction, when gold shows the rows, is the loads' removal and a flush.
-- Counted is what was moved by this transaction: never rows that a load makes due again, whatever the reason.
create or replace function scout_bronze.measure_lags(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    bounds_s constant double precision[] := scout_bronze.lag_bounds_s();
    shown_at constant timestamptz := clock_timestamp();
    this_hour constant timestamptz := date_trunc('hour', now(), 'UTC');
begin
    with moved as materialized (
        select
            bronze.device_id,
            extract(epoch from shown_at - load.committed_at)::double precision as etl_s,
            case
                -- The time of a clock that was neither synchronised nor measured says nothing.
                when bronze.clock = 'unsynced' and measured.zero_at is null then null
                else extract(
                    epoch
                    from bronze.ingested_at
                        - scout.corrected_at(bronze.captured_at, bronze.clock, bronze.mono_ms, measured.zero_at)
                )::double precision
            end as capture_s
        from scout_bronze.loads as load
        join scout.bronze_transactions_raw as bronze using (load_id)
        left join scout_edge.boots as measured
            on bronze.clock = 'unsynced'
            and measured.device_id = bronze.device_id
            and measured.boot = bronze.boot
        where load.load_id = any (loads) and bronze.moved_at >= now()
    ),
    measured as (
        select
            device_id,
            kind,
            bounds_s[least(width_bucket(lag_s, bounds_s) + 1, cardinality(bounds_s))] as below_s
        from moved
        cross join lateral (values ('etl', etl_s), ('capture', capture_s)) as lag (kind, lag_s)
        where lag_s is not null
    )
    insert into scout_bronze.lags as known (hour, device_id, kind, below_s, rows)
    select this_hour, device_id, kind, below_s, count(*)
    from measured
    group by device_id, kind, below_s
    on conflict (hour, device_id, kind, below_s) do update set rows = known.rows + excluded.rows;

    -- One look at the key's first entry; something to remove once an hour.
    delete from scout_bronze.lags where hour < this_hour - interval '8 days';
end
$$;
comment on function scout_bronze.measure_lags is
    'Counts in scout_bronze.lags how long the rows took that this transaction moved by these loads.';
