-- Takes in the boots `[{boot, zero_at, error_ms}, …]` of a report, 100 at most; false when any is malformed.
-- May be relied on: a device speaks of its own boots only. A surer measurement replaces another one, and so does
-- one that contradicts it by more than a minute, for then our own clock was set. Each that is taken in makes the
-- boot's rows due once more; halving the error each time bounds how often that can be.
create or replace function scout_edge.note_boots(device text, boots jsonb)
returns boolean
language plpgsql
set search_path = ''
as $$
declare
    instant constant text := '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?Z$';
    reported record;
    began_at timestamptz;
begin
    if jsonb_typeof(boots) <> 'array' then
        return false;
    end if;
    for reported in
        select
            listed.value ->> 'boot' as boot,
            listed.value ->> 'zero_at' as zero_at,
            listed.value -> 'error_ms' as error_ms
        from jsonb_array_elements(boots) with ordinality as listed (value, place)
        where listed.place <= 100
        order by 1
    loop
        if coalesce(reported.boot !~ '^[0-9A-Za-z-]{1,64}$', true)
            or coalesce(reported.zero_at !~ instant, true)
            or coalesce(reported.error_ms::text !~ '^(0|[1-9][0-9]{0,8})$', true)
        then
            return false;
        end if;
        begin
            began_at := reported.zero_at::timestamptz;
        exception when data_exception then
            return false;  -- such as a 30th of February
        end;
        -- Our clock, by which it was measured, was wrong then. Refusing the report would keep its receipts back.
        continue when began_at not between '2000-01-01' and now() + interval '1 day';

        insert into scout_edge.boots as known (device_id, boot, zero_at, error_ms)
        values (device, reported.boot, began_at, reported.error_ms::integer)
        on conflict (device_id, boot) do update
            set zero_at = excluded.zero_at, error_ms = excluded.error_ms, heard_at = now()
            where excluded.error_ms * 2 < known.error_ms
                or abs(extract(epoch from excluded.zero_at - known.zero_at)) * 1000
                    > 60000 + excluded.error_ms + known.error_ms;
        if found then
            insert into scout_bronze.loads (rows, device_id, boot)
            select count(*), device, reported.boot
            from (
                -- Rows of which an ETL that runs now reads the old measurement are in the landing table at least;
                -- those that were removed from there are in production.
                select landed.raw_id
                from scout_bronze.transactions_raw as landed
                where landed.device_id = device and landed.boot = reported.boot and landed.clock = 'unsynced'
                union
                select moved.raw_id
                from scout.bronze_transactions_raw as moved
                where moved.device_id = device and moved.boot = reported.boot and moved.clock = 'unsynced'
            ) as of_boot
            having count(*) > 0;
        end if;
    end loop;
    return true;
end
$$;
revoke all on function scout_edge.note_boots(text, jsonb) from public;
