-- The one call home. Stock PostgREST serves it: one unnamed argument, so unknown keys are no error.
-- May be relied on: only a device's own token reaches it, what is malformed is refused as a whole and nothing
-- of it is kept, and the cost follows the report's size (bounded) and at most the device's own epochs, never the
-- number of rows or devices.
create or replace function public.heartbeat(jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
    report constant jsonb := $1;
    claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    device constant text := claims ->> 'sub';
    refusal text;
    reported record;
    unsettled int8multirange;
    lost int8multirange;
    jumped text;    -- the first head that is not believed
    -- An epoch begins at a boot: twenty a day for ten years are fewer.
    epochs_max constant bigint := 100000;
    epochs_left bigint;  -- so many more that are not known yet; counted when the first of them comes
    too_many text;
    named text[];   -- every name in the report
    awaits text[];  -- those of them that are batches of this device
    settled text[];
    batches jsonb;
begin
    if device is null or claims ->> 'role' is distinct from 'edge_uploader' then
        raise exception 'heartbeat is for device tokens' using errcode = '42501';
    end if;
    refusal := scout_edge.token_refusal('edge_uploader', device, (claims ->> 'iat')::bigint, claims ->> 'jti');
    if refusal is not null then
        raise exception '%', refusal using errcode = '42501',
            hint = 'An operator can add or restore the device, or issue a new token.';
    end if;

    -- A missing part counts as empty; `octet_length` bounds every list below at once.
    if octet_length(report::text) > 1048576
        or jsonb_typeof(report) <> 'object'
        or coalesce(length(report ->> 'nonce') not between 1 and 200, true)
        or coalesce(jsonb_typeof(report -> 'epochs') <> 'array', false)
        or coalesce(jsonb_typeof(report -> 'awaits') <> 'array', false)
    then
        raise exception 'malformed report' using errcode = '22023',
            hint = 'A report is an object of at most 1 MiB with a nonce and the lists epochs and awaits.';
    end if;
    if not scout_edge.note_boots(device, coalesce(report -> 'boots', '[]')) then
        raise exception 'malformed boot in report' using errcode = '22023',
            hint = 'A boot has a name, zero_at as 2026-11-25T10:30:00.000Z, and error_ms.';
    end if;

    insert into scout_edge.heartbeats (device_id, heard_at, report)
    values (device, now(), report - 'awaits')
    on conflict (device_id) do update
        set heard_at = excluded.heard_at, report = excluded.report;
    insert into scout_edge.heartbeat_history (device_id, hour, heard_at, report)
    values (device, date_trunc('hour', now(), 'UTC'), now(), report - 'awaits' - 'epochs' - 'boots')
    on conflict (device_id, hour) do update
        set heard_at = excluded.heard_at, report = excluded.report;

    for reported in
        select
            epochs.value ->> 'epoch' as epoch,
            epochs.value -> 'head' as head,
            epochs.value -> 'unsettled' as runs,
            epochs.value -> 'lost' as lost
        from jsonb_array_elements(coalesce(report -> 'epochs', '[]')) as epochs
        order by 1
    loop
        unsettled := scout_edge.runs(reported.runs, reported.head);
        lost := scout_edge.runs(coalesce(reported.lost, '[]'), reported.head);
        if coalesce(reported.epoch !~ '^[0-9a-f]{16}$', true) or unsettled is null or lost is null then
            raise exception 'malformed epoch in report' using errcode = '22023',
                hint = 'An epoch has 16 hex digits, a head, and unsettled and lost runs [first, last] within 1..head.';
        end if;
        if not exists (
            select from scout_edge.heads where heads.device_id = device and heads.epoch = reported.epoch
        ) then
            epochs_left := coalesce(
                epochs_left, epochs_max - (select count(*) from scout_edge.heads where heads.device_id = device)
            );
            if epochs_left <= 0 then
                too_many := format('more than %s epochs were reported', epochs_max);
                continue;
            end if;
            epochs_left := epochs_left - 1;
        end if;
        -- An older agent says nothing of losses.
        if not scout_edge.note_epoch(
            device, reported.epoch, reported.head::bigint, unsettled, case when reported.lost is not null then lost end
        ) then
            jumped := coalesce(jumped, format('epoch %s: head %s was reported', reported.epoch, reported.head));
        end if;
    end loop;
    perform scout_edge.note_alarm(device, 'head_jumped', jumped);
    perform scout_edge.note_alarm(device, 'too_many_epochs', too_many);

    named := array(
        select names.value #>> '{}'
        from jsonb_array_elements(coalesce(report -> 'awaits', '[]')) with ordinality as names (value, place)
        where names.place <= 500 and jsonb_typeof(names.value) = 'string'
    );
    awaits := array(
        select distinct name
        from unnest(named) as name
        where split_part(name, '/', 2) = device
          and name ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}/[a-z0-9-]+/[0-9a-f]{16}-[0-9]{12}-[0-9]{12}-[0-9a-f]{16}[.]jsonl[.]gz$'
        order by name
    );
    -- By whichever path or copy it arrived.
    settled := array(select name from unnest(awaits) as name where scout_bronze.is_settled(device, name));

    delete from scout_edge.awaited where device_id = device and key = any (settled);
    -- In key order, as the loader takes them: crossed orders deadlock.
    insert into scout_edge.awaited (device_id, key, asked_at)
    select device, name, now()
    from unnest(awaits) as name
    where name <> all (settled)
    order by name
    on conflict do nothing;

    select coalesce(
        jsonb_object_agg(
            name,
            case
                when name = any (settled) then 'settled'
                when awaited.resend > 0 then 'resend ' || awaited.resend
                else 'unknown'
            end
        ),
        '{}'
    )
    into batches
    from (select distinct name from unnest(named) as name) as names
    left join scout_edge.awaited on awaited.device_id = device and awaited.key = name;

    return (
        select jsonb_build_object(
            'nonce', report ->> 'nonce',
            'server_time', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'generation', scout_edge.generation_for(device),
            'keep_for_days', settings.keep_for_days,
            'batches', batches,
            'renew_token', scout_edge.renewal_due(claims)
        )
        from scout_edge.settings
    );
end
$$;

revoke all on function public.heartbeat(jsonb) from public;
do $$
declare
    other text;
begin
    -- Supabase grants every new function in `public` to these.
    for other in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated', 'service_role')
    loop
        execute pg_catalog.format('revoke all on function public.heartbeat(jsonb) from %I', other);
    end loop;
end
$$;
grant execute on function public.heartbeat(jsonb) to edge_uploader;
