-- Step of the ETL: the rows that these loads make due again, though nothing of them is new. Those of a boot whose time
-- its measurement corrects, or those of a range; and every other version of the same sales, for what is read anew may
-- make another version the latest, which then brings its items.
create or replace function scout_bronze.find_rows_again(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
-- Looked up row by row: joined as a whole, production would cost more with every row that is there.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    -- Nearly always there is none.
    if not exists (
        select
        from scout_bronze.loads as load
        where load.load_id = any (find_rows_again.loads) and (load.boot is not null or load.first_raw_id is not null)
    ) then
        return;
    end if;

    with load as materialized (
        select * from scout_bronze.loads where load_id = any (find_rows_again.loads)
    ),
    meant as materialized (
        select load.load_id, bronze.raw_id
        from load
        join scout.bronze_transactions_raw as bronze
            on bronze.device_id = load.device_id and bronze.boot = load.boot and bronze.clock = 'unsynced'
        union
        select load.load_id, bronze.raw_id
        from load
        join scout.bronze_transaction_rows as bronze on bronze.raw_id between load.first_raw_id and load.last_raw_id
        where load.store_id is null
        union
        select load.load_id, bronze.raw_id
        from load
        join scout.bronze_edge_rows as bronze on bronze.raw_id between load.first_raw_id and load.last_raw_id
        where load.store_id is null
        union
        select load.load_id, sale.raw_id
        from load
        join scout.silver_transactions as sale
            on coalesce(sale.store_id, 'unknown') = load.store_id
            and sale.raw_id between load.first_raw_id and load.last_raw_id
        union
        select load.load_id, version.raw_id
        from load
        join scout.silver_transaction_versions as version
            on coalesce(version.store_id, 'unknown') = load.store_id
            and version.raw_id between load.first_raw_id and load.last_raw_id
    ),
    sale as materialized (
        select load_id, source_id, transaction_key from meant join scout.silver_transactions using (raw_id)
        union
        select load_id, source_id, transaction_key from meant join scout.silver_transaction_versions using (raw_id)
    )
    insert into scout_bronze.rows_again (load_id, raw_id)
    select load_id, raw_id from meant
    union
    select load_id, raw_id from sale join scout.silver_transactions using (source_id, transaction_key)
    union
    select load_id, raw_id from sale join scout.silver_transaction_versions using (source_id, transaction_key);
end
$$;
comment on function scout_bronze.find_rows_again is
    'Lists in scout_bronze.rows_again the production rows that are to be typed again because of these loads; returns
     no row, for it changes no target.';

create or replace function scout_bronze.rows_due_again(loads bigint[]) returns bigint[]
language sql stable
as $$
    select coalesce(array_agg(distinct raw_id), '{}')
    from scout_bronze.rows_again
    where load_id = any (loads)
$$;
comment on function scout_bronze.rows_due_again is
    'raw_id of each production row that is to be typed again because of these loads, as scout_bronze.find_rows_again
     found them; none for loads of commits.';
