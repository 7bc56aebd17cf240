-- Grain: one row per row of scout.bronze_edge_raw. Besides that, this model reads scout_edge.boots and
-- scout.dim_store, for times.
create or replace function scout.refresh_silver_edge_events(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    again constant bigint[] := scout_bronze.rows_due_again(loads);
    events_read bigint;
    events_written bigint;
begin
    with said as materialized (
        select
            bronze.raw_id,
            bronze.source_id,
            bronze.device_id,
            bronze.epoch,
            bronze.seq,
            bronze.record_id,
            scout.corrected_at(bronze.captured_at, bronze.clock, bronze.mono_ms, measured.zero_at) as captured_at,
            bronze.clock,
            bronze.boot,
            bronze.mono_ms,
            bronze.src_filename,
            bronze.line,
            bronze.claimed_device_id,
            bronze.ingested_at,
            bronze.payload is not null as is_readable,
            told.transaction_id as said_transaction_id,
            told.store_id as said_store_id,
            told."timestamp" as said_time,
            told.timestamp_zone as said_zone
        from scout.bronze_edge_rows as bronze
        left join scout_edge.boots as measured
            on bronze.clock = 'unsynced'
            and measured.device_id = bronze.device_id
            and measured.boot = bronze.boot
        cross join lateral scout.told_event(bronze.payload) as told
        where bronze.load_id = any (loads) or bronze.raw_id = any (again)
    ),
    placed as materialized (
        select
            said.*,
            scout.said_text(said_store_id) as store_id,
            coalesce(
                said_zone,
                (select time_zone from scout.dim_store where store_id = scout.said_text(said_store_id)),
                scout.store_zone()
            ) as zone
        from said
    ),
    typed as materialized (
        select
            placed.*,
            scout.said_text(said_transaction_id) as transaction_id,
            scout.said_instant(said_time, zone) as event_at
        from placed
    ),
    written as (
        insert into scout.silver_edge_events as event (
            raw_id, source_id, device_id, epoch, seq, record_id, captured_at, clock, boot, mono_ms,
            src_filename, line, claimed_device_id, ingested_at, transaction_id, store_id, event_at, is_readable
        )
        select
            raw_id, source_id, device_id, epoch, seq, record_id,
            -- In an imported file the older devices wrote into each sale when it was taken.
            coalesce(case when clock = 'file' then event_at end, captured_at),
            clock, boot, mono_ms, src_filename, line, claimed_device_id, ingested_at,
            transaction_id,
            store_id,
            event_at,
            is_readable
        from typed
        on conflict (raw_id) do update set (
            captured_at, transaction_id, store_id, event_at, is_readable
        ) = (
            excluded.captured_at, excluded.transaction_id, excluded.store_id, excluded.event_at, excluded.is_readable
        )
        where (event.*) is distinct from (excluded.*)
        returning raw_id
    )
    select (select count(*) from said), (select count(*) from written)
    into events_read, events_written;

    return next row(
        'scout.silver_edge_events', events_read, events_written, events_read - events_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_edge_events is
    'Types the edge events of these loads. May be run again; then it writes what changed.';
