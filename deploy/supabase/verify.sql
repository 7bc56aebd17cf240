-- One row per thing that a device's token may or may not do, after `scout-server migrate`: it is tried, in the device's
-- role, and all of it is rolled back.
--
--     psql "$DATABASE_URL" --file verify.sql
--
-- Run it as the user that ran migrate. What is not as it should be comes first, and then the exit status is 3.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
begin;
insert into scout_edge.devices (device_id, source, revoked_at)
values ('verify-a', 'verify.sql', null), ('verify-b', 'verify.sql', null), ('verify-gone', 'verify.sql', now());

do $$
declare
    now_s constant bigint := extract(epoch from now())::bigint;
    token constant jsonb := jsonb_build_object(
        'role', 'edge_uploader', 'sub', 'verify-a', 'iat', now_s, 'exp', now_s + 86400, 'jti', gen_random_uuid()
    );
    store constant text := 'insert into storage.objects (bucket_id, name, version, metadata, owner_id) values (%L, %L, '
        '''1'', jsonb_build_object(''mimetype'', ''application/gzip'', ''contentLength'', %s), ''verify'')';
    own constant text := format(store, 'scout-ingest', '2026-01-20/verify-a/file.jsonl.gz', 100);
    trial record;
    found text;
    results jsonb := '[]';
begin
    for trial in
        select *
        from (
            values
            (1, 'stores into its own folder', 'may', token, own),
            (2, 'calls home', 'may', token, 'select public.heartbeat(''{"nonce": "n"}'')'),
            (
                3, 'stores into another device''s folder', 'may not', token,
                format(store, 'scout-ingest', '2026-01-20/verify-b/file.jsonl.gz', 100)
            ),
            (
                4, 'stores beside the days'' folders', 'may not', token,
                format(store, 'scout-ingest', 'verify-a/file.jsonl.gz', 100)
            ),
            (
                5, 'stores more than 50 MiB', 'may not', token,
                format(store, 'scout-ingest', '2026-01-20/verify-a/file.jsonl.gz', 52428801)
            ),
            (
                6, 'stores into another bucket', 'may not', token,
                format(store, 'verify', '2026-01-20/verify-a/file.jsonl.gz', 100)
            ),
            (7, 'reads what is stored', 'may not', token, 'select name from storage.objects'),
            (8, 'replaces what is stored', 'may not', token, 'update storage.objects set name = name'),
            (9, 'removes what is stored', 'may not', token, 'delete from storage.objects'),
            (10, 'lists the devices', 'may not', token, 'select device_id from scout_edge.devices'),
            (11, 'reads the sales', 'may not', token, 'select payload from scout_bronze.transactions_raw'),
            (12, 'stores with a token that never ends', 'may not', token - 'exp', own),
            (13, 'stores while it is revoked', 'may not', token || '{"sub": "verify-gone"}',
                format(store, 'scout-ingest', '2026-01-20/verify-gone/file.jsonl.gz', 100)),
            (14, 'stores while it is not known', 'may not', token || '{"sub": "verify-nobody"}',
                format(store, 'scout-ingest', '2026-01-20/verify-nobody/file.jsonl.gz', 100))
        ) as trials (place, what, should, claims, statement)
        order by place
    loop
        begin
            perform set_config('request.jwt.claims', trial.claims::text, true);
            set local role edge_uploader;
            execute trial.statement;
            raise exception using errcode = 'SCOUT';  -- undoes it
        exception
            when sqlstate 'SCOUT' then found := 'may';
            when insufficient_privilege then found := 'may not';
            when others then found := 'fails: ' || sqlerrm;
        end;
        results := results || jsonb_build_object(
            'place', trial.place, 'what', trial.what, 'should', trial.should, 'found', found
        );
    end loop;
    perform set_config('scout.verified', results::text, true);
end
$$;

select
    what as "a device's token",
    should as "should",
    found as "it",
    case when found = should then 'well' else 'WRONG' end as "so that is"
from jsonb_to_recordset(current_setting('scout.verified')::jsonb) as result (place integer, what text, should text, found text)
order by found = should, place;

select bool_and(found = should) and count(*) = 14 as all_is_well
from jsonb_to_recordset(current_setting('scout.verified')::jsonb) as result (should text, found text) \gset
rollback;
\if :all_is_well
\else
    \warn 'NOT WELL: do not let a device in. Run scout-server migrate again, and look at the project''s own policies and grants.'
    do $$ begin raise exception 'a device''s token is not held to what it may do'; end $$;
\endif
