-- Step of the ETL: every landing row of these loads into both production tables, once.
create or replace function scout_bronze.move_to_production(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    arrived bigint;
    to_edge bigint;
    to_transactions bigint;
    unreadable bigint;
begin
    with parsed as materialized (
        select
            raw.*,
            scout_bronze.payload_object(raw.payload) as object,
            coalesce(device.source, raw.device_id) as source_id
        from scout_bronze.transactions_raw as raw
        left join scout_edge.devices as device using (device_id)
        where raw.load_id = any (loads)
        order by raw.raw_id
    ),
    landed as materialized (
        select
            parsed.*,
            coalesce(
                -- Of an imported file: the older devices wrote into each sale when it was taken.
                case when clock = 'file' then (
                    select
                        scout.said_instant(
                            told."timestamp",
                            coalesce(
                                told.timestamp_zone,
                                (select time_zone from scout.dim_store where store_id = scout.said_text(told.store_id)),
                                scout.store_zone()
                            )
                        )
                    from scout.told_event(parsed.object) as told
                ) end,
                captured_at
            ) as taken_at
        from parsed
    ),
    edge as (
        insert into scout.bronze_edge_raw (
            device_id, captured_at, src_filename, payload, ingested_at, raw_id, load_id, source_id, epoch, seq,
            record_id, identity, clock, boot, mono_ms, line, claimed_device_id, payload_text
        )
        select
            device_id, taken_at, object_key, object, ingested_at, raw_id, load_id, source_id, epoch, seq,
            id, identity, clock, boot, mono_ms, line, claimed_device_id,
            case when object is null then payload end
        from landed
        on conflict (raw_id) do nothing
        returning raw_id
    ),
    transactions as (
        insert into scout.bronze_transactions_raw (
            payload, source_id, ingested_at, raw_id, load_id, device_id, epoch, seq,
            record_id, identity, captured_at, clock, boot, mono_ms, object_key, line, claimed_device_id,
            payload_text
        )
        select
            object, source_id, ingested_at, raw_id, load_id, device_id, epoch, seq,
            id, identity, taken_at, clock, boot, mono_ms, object_key, line, claimed_device_id,
            case when object is null then payload end
        from landed
        on conflict (raw_id) do nothing
        returning raw_id
    )
    select
        (select count(*) from landed),
        (select count(*) from edge),
        (select count(*) from transactions),
        (select count(*) from landed where object is null)
    into arrived, to_edge, to_transactions, unreadable;

    return next row('scout.bronze_edge_raw', arrived, to_edge, arrived - to_edge, unreadable)::scout_bronze.step_result;
    return next row(
        'scout.bronze_transactions_raw', arrived, to_transactions, arrived - to_transactions, unreadable
    )::scout_bronze.step_result;
end
$$;
comment on function scout_bronze.move_to_production is
    'Moves the rows of these loads to scout.bronze_edge_raw and scout.bronze_transactions_raw. Refused are
     payloads that jsonb can''t hold: their rows are written too, with the text in payload_text.';
