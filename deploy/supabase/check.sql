-- One row per requirement: what a Supabase project must have before `scout-server migrate`. Reads and changes nothing.
--
--     psql "$DATABASE_URL" --file check.sql
--
-- Run it as the user that will run migrate. What says NO comes first, each with what to do; `?` is what only migrate
-- finds out. What no database knows (plan, JWT secret, limits of the project) stands in README.md.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null ''
-- A table that is not there, or closed, can't be named in a query.
select coalesce(has_table_privilege(to_regclass('storage.buckets'), 'select'), false) as buckets_can_be_read \gset
\if :buckets_can_be_read
    select
        coalesce(bool_or(public), false) as bucket_is_public,
        coalesce(
            bool_or(file_size_limit < 52428800 or cardinality(allowed_mime_types) > 0), false
        ) as bucket_is_narrow
    from storage.buckets
    where id = 'scout-ingest' \gset
\else
    \set bucket_is_public false
    \set bucket_is_narrow false
\endif

with objects as (
    select pg_class.oid, pg_class.relowner, pg_class.relrowsecurity
    from pg_class
    where pg_class.oid = to_regclass('storage.objects')
),

columns as (
    select
        pg_attribute.attname as name,
        has_column_privilege(objects.oid, pg_attribute.attnum, 'insert with grant option') as may_grant
    from objects
    join pg_attribute on pg_attribute.attrelid = objects.oid and not pg_attribute.attisdropped
    where pg_attribute.attname in ('bucket_id', 'name', 'version', 'metadata', 'owner_id', 'user_metadata')
),

me as (
    select rolcreaterole or rolsuper as may_create_roles from pg_roles where rolname = current_user
),

-- On a hosted project an extension lets its owner make policies on some tables that are another's.
policies as (
    select
        (select pg_has_role(current_user, relowner, 'usage') from objects) as as_member,
        current_setting('supautils.policy_grants', true) like '%"storage.objects"%' as by_extension
),

requirements (place, requirement, has_it, otherwise) as (
    values
    (
        1, 'PostgreSQL 15 or newer', current_setting('server_version_num')::integer >= 150000,
        'upgrade the project''s database (its infrastructure settings); this one is ' || current_setting('server_version')
    ),
    (
        2, 'may create schemas', has_database_privilege(current_database(), 'create'),
        format('as postgres: grant create on database %I to %I', current_database(), current_user)
    ),
    (
        3, 'may create functions in public', has_schema_privilege(to_regnamespace('public'), 'create'),
        format('as postgres: grant create on schema public to %I', current_user)
    ),
    (
        4, 'may create the devices'' and the analysts'' role',
        (select may_create_roles from me)
        or (select count(*) = 2 from pg_roles where rolname in ('edge_uploader', 'scout_analyst')),
        format('as postgres: alter role %I createrole', current_user)
    ),
    (
        5, 'the REST layer''s role is there', exists (select from pg_roles where rolname = 'authenticator'),
        'this is no Supabase project, or its REST layer is off: devices could not call home there'
    ),
    (
        6, 'the REST layer serves the schema public',
        not exists (
            select
            from pg_db_role_setting
            join pg_roles on pg_roles.oid = pg_db_role_setting.setrole
            cross join unnest(pg_db_role_setting.setconfig) as setting
            where pg_roles.rolname = 'authenticator'
                and setting like 'pgrst.db\_schemas=%'
                and not 'public' = any(regexp_split_to_array(split_part(setting, '=', 2), '[\s,"]+'))
        ),
        'add public to the exposed schemas (API settings): heartbeat lies there'
    ),
    (
        7, 'Storage is there', exists (select from objects) and to_regclass('storage.buckets') is not null,
        'turn on the project''s Storage: devices deliver to it'
    ),
    (
        8, 'Storage is new enough',
        not exists (select from objects)
        or (select count(*) from columns where name in ('bucket_id', 'name', 'version', 'metadata', 'owner_id')) = 5,
        'upgrade the project: storage.objects lacks columns that its newer versions fill'
    ),
    (
        9, 'Storage asks for policies', coalesce((select relrowsecurity from objects), true),
        'alter table storage.objects enable row level security: without it a device may store anything anywhere'
    ),
    (
        10, 'may open Storage to the devices'' role',
        coalesce(has_schema_privilege(to_regnamespace('storage'), 'usage with grant option'), true)
        and coalesce((select bool_and(may_grant) from columns), true),
        format(
            'run it as postgres; or as the owner of Storage: grant usage on schema storage to %1$I with grant option; '
            'grant insert on storage.objects to %1$I with grant option', current_user
        )
    ),
    (
        11, 'may make policies in Storage', (select as_member or by_extension from policies),
        format('run it as postgres; or as a superuser: grant supabase_storage_admin to %I', current_user)
    ),
    (
        12, 'may make the bucket',
        coalesce(has_table_privilege(to_regclass('storage.buckets'), 'select'), true)
        and coalesce(has_table_privilege(to_regclass('storage.buckets'), 'insert'), true),
        format('run it as postgres; or: grant select, insert on storage.buckets to %I', current_user)
    ),
    (
        13, 'the bucket scout-ingest is private, or not there yet', not :'bucket_is_public'::boolean,
        'anybody could read the sales in it: run bucket.sql'
    ),
    (
        14, 'the bucket takes 50 MiB of any type, or is not there yet', not :'bucket_is_narrow'::boolean,
        'devices'' batches would be refused: run bucket.sql'
    )
)

select
    requirement,
    case when has_it then 'yes' when place = 11 then '?' else 'NO' end as "has it",
    case when has_it then '' else otherwise end as "what to do"
from requirements
order by case when has_it then 2 when place = 11 then 1 else 0 end, place;
