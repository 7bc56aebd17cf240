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
    ),
    sale as materialized (
        select source_id, transaction_key from corrected join scout.silver_transactions using (raw_id)
        union
        select source_id, transaction_key from corrected join scout.silver_transaction_versions using (raw_id)
    )
    select coalesce(array_agg(raw_id), '{}')
    from (
        select raw_id from corrected
        union
        select raw_id from sale join scout.silver_transactions using (source_id, transaction_key)
        union
        select raw_id from sale join scout.silver_transaction_versions using (source_id, transaction_key)
    ) as due
$$;
comment on function scout_bronze.rows_due_again is
    'raw_id of each production row that is to be typed again because of these loads; none for loads of commits.';
