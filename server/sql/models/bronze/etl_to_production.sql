-- Bronze to silver, incremental: moves what loaders committed, types it, and forgets the loads it moved.
--
-- May be relied on: safe to run twice at once, while loaders commit, and after a crash at any statement: all of
-- one call is one transaction, and a load is work until the transaction that moved it has committed. A load
-- that raises never holds up the others. The cost follows the new rows.
create or replace function scout_bronze.etl_to_production()
returns table (
    target text,
    rows_read bigint,
    rows_written bigint,
    rows_already_there bigint,
    rows_refused bigint,
    lag interval
)
language plpgsql volatile
-- Plans for the rows of now, not for those of when the connection opened; compiling them costs more than it saves.
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '64MB'
as $$
#variable_conflict use_column
declare
    -- In this order. Each takes load ids, and may be run again for the same loads.
    steps constant text[] := array[
        'scout_bronze.move_to_production',
        'scout_bronze.find_forks',
        'scout_bronze.find_rows_again',
        'scout.refresh_silver_edge_events',
        'scout.refresh_silver_transactions',
        'scout.refresh_silver_transaction_items',
        'scout.refresh_silver_combo_items',
        'scout.refresh_silver_substitutions',
        'scout.refresh_dim_store',
        'scout.refresh_dim_device',
        'scout.refresh_dim_brand',
        'scout.refresh_dim_category',
        'scout.refresh_dim_sku',
        'scout.refresh_dim_date'
    ];
    -- A call is one transaction: bounded, so that others see its rows soon and a crash costs little.
    rows_max constant bigint := 20000;
    loads_max constant bigint := 2000;
    due bigint[];
    attempt bigint[];
    attempt_size integer;
    step text;
    result scout_bronze.step_result;
    fresh scout_bronze.step_result[];
    results scout_bronze.step_result[] := '{}';
    waited interval;
begin
    perform scout_bronze.hold_etl();

    due := array(
        select load_id from scout_bronze.due_loads
        where rows_before < rows_max and place <= loads_max
        order by place
    );
    attempt_size := cardinality(due);
    loop
        attempt := due[1:attempt_size];
        fresh := '{}';
        begin
            foreach step in array steps loop
                for result in execute format('select * from %s($1)', step) using attempt loop
                    fresh := fresh || result;
                end loop;
            end loop;
            step := 'scout_bronze.loads';
            delete from scout_bronze.rows_again where load_id = any (attempt);
            delete from scout_bronze.loads where load_id = any (attempt);
            results := results || fresh;
            due := due[cardinality(attempt) + 1:];
            attempt_size := attempt_size * 2;
        exception when others then
            -- Conflicts with others, want of memory or disk, a shutdown: not the load's fault. The caller tries again.
            if left(sqlstate, 2) in ('40', '53', '55', '57', '58') or cardinality(attempt) = 0 then
                raise;
            end if;
            -- Halved until the one that raises is alone. Its message might quote a payload, so it isn't kept.
            if cardinality(attempt) = 1 then
                update scout_bronze.loads
                set error = format('%s raised SQLSTATE %s', step, sqlstate), tried_at = clock_timestamp()
                where load_id = attempt[1];
                due := due[2:];
            end if;
            attempt_size := greatest(attempt_size / 2, 1);
        end;
        -- Where nothing was moved, one round over no loads: each target still gets its row.
        exit when cardinality(due) = 0 and cardinality(results) > 0;
    end loop;

    waited := clock_timestamp() - (
        select min(committed_at) from scout_bronze.loads where first_raw_id is null
    );
    return query
    select
        moved.target,
        sum(moved.rows_read)::bigint,
        sum(moved.rows_written)::bigint,
        sum(moved.rows_already_there)::bigint,
        sum(moved.rows_refused)::bigint,
        coalesce(waited, interval '0')
    from unnest(results) with ordinality as moved (
        target, rows_read, rows_written, rows_already_there, rows_refused, place
    )
    group by moved.target
    order by min(moved.place);
end
$$;
comment on function scout_bronze.etl_to_production is
    'Moves and types the loads that are due, up to a bound, and returns one row per target: rows read, written,
     already there and refused (fields that could not be typed), and how long the oldest load left has waited,
     ranges to be typed again left out.';
