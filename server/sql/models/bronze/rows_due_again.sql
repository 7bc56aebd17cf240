-- The rows that loads of a boot make due again: those whose time its measurement corrects, and every other version
-- of the same sales, for a corrected time may make another version the latest.
create or replace function scout_bronze.rows_due_again(loads bigint[]) returns bigint[]
language sql stable
as $$
    with corrected as materialized (
        select bronze.raw_id
        from scout_bronze.loads as load
        join scout.bronze_transactions_raw as bronze
            on bronze.device_id = load.device_id and bronze.boot = load.boot and bronze.clock = 'unsynced'
        where load.load_id = any (rows_due_again.loads) and load.boot is not null
    )
    select coalesce(array_agg(raw_id), '{}')
    from (
        select raw_id from corrected
        union
        select version.raw_id
        from corrected
        join scout.silver_edge_events as event using (raw_id)
        join scout.silver_edge_events as version
            on version.source_id = event.source_id
            and left(version.transaction_id, 200) = left(event.transaction_id, 200)
            and version.transaction_id is not null
    ) as due
$$;
comment on function scout_bronze.rows_due_again is
    'raw_id of each production row that is to be typed again because of these loads; none for loads of commits.';
