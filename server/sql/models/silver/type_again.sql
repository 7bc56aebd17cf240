-- Makes rows due again that are typed already, in loads small enough for one call of the ETL.
create or replace function scout.type_again() returns bigint
language plpgsql
as $$
declare
    rows_queued bigint;
begin
    perform scout_bronze.hold_etl();
    -- What waits already is queued anew.
    delete from scout_bronze.loads where first_raw_id is not null and store_id is null;
    with numbered as (
        select raw_id, (row_number() over (order by raw_id) - 1) / 20000 as place
        from (
            select raw_id, load_id from scout.bronze_transaction_rows
            union
            select raw_id, load_id from scout.bronze_edge_rows where raw_id < 0 -- adopted: numbered by another table
        ) as listed
        -- What was never typed waits already.
        where not exists (select from scout_bronze.loads as waiting where waiting.load_id = listed.load_id)
    ),
    queued as (
        insert into scout_bronze.loads (rows, first_raw_id, last_raw_id)
        select count(*), min(raw_id), max(raw_id)
        from numbered
        group by place
        order by place
        returning rows
    )
    select coalesce(sum(rows), 0) into rows_queued from queued;
    return rows_queued;
end
$$;
comment on function scout.type_again is
    'Has the ETL type every row of production again, say after scout.dialect or scout.vocabulary changed; returns how
     many rows. New sales are typed before them.';

create or replace function scout.time_zone_checked() returns trigger
language plpgsql
as $$
declare
    unknown_zone text;
begin
    -- Not pg_timezone_names where there is nothing to look for: it reads a file per zone.
    if exists (select from changed where time_zone <> scout.store_zone()) then
        select time_zone into unknown_zone
        from changed
        where time_zone <> scout.store_zone() and time_zone not in (select name from pg_catalog.pg_timezone_names)
        limit 1;
    end if;
    if unknown_zone is not null then
        raise exception 'there is no time zone called %', quote_literal(unknown_zone)
            using errcode = 'invalid_parameter_value',
                hint = 'Zones are called like Asia/Manila: select name from pg_timezone_names.';
    end if;
    return null;
end
$$;
comment on function scout.time_zone_checked is 'Trigger: a store''s time zone must be one that PostgreSQL knows.';

create or replace function scout.time_zone_changed() returns trigger
language plpgsql
as $$
begin
    insert into scout_bronze.loads (rows, store_id, first_raw_id, last_raw_id)
    select count(*), store_id, min(raw_id), max(raw_id)
    from (
        select
            store.store_id,
            version.raw_id,
            (row_number() over (partition by store.store_id order by version.raw_id) - 1) / 20000 as place
        from changed as store
        join former on former.store_id = store.store_id and former.time_zone <> store.time_zone
        cross join lateral (
            select raw_id from scout.silver_transactions where coalesce(store_id, 'unknown') = store.store_id
            union all
            select raw_id from scout.silver_transaction_versions where coalesce(store_id, 'unknown') = store.store_id
        ) as version
    ) as numbered
    group by store_id, place
    order by store_id, place;
    return null;
end
$$;
comment on function scout.time_zone_changed is 'Trigger: the sales of a store whose time zone changed are due again.';

create or replace trigger hold_etl before update of time_zone on scout.dim_store
for each statement execute function scout_bronze.hold_etl_first();
create or replace trigger time_zone_checked_of_new after insert on scout.dim_store
referencing new table as changed
for each statement execute function scout.time_zone_checked();
create or replace trigger time_zone_checked after update on scout.dim_store
referencing new table as changed
for each statement execute function scout.time_zone_checked();
create or replace trigger time_zone_changed after update on scout.dim_store
referencing old table as former new table as changed
for each statement execute function scout.time_zone_changed();
