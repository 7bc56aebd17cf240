-- lock_migrations -- one migration at a time in this database, until this session unlocks or ends
select pg_advisory_lock(hashtext('scout-edge migrations'))

-- unlock_migrations -- let the next one in
select pg_advisory_unlock(hashtext('scout-edge migrations'))

-- hold_etl -- no ETL runs until this transaction ends: it and the new models would wait for each other
select pg_advisory_xact_lock(hashtextextended('scout_bronze.etl_to_production', 0))

-- relations_there -- which of these tables and views exist
select name from unnest(%(names)s::text[]) as name where to_regclass(name) is not null

-- has_checksums -- whether the ledger was used by us before
select exists (
    select
    from pg_attribute
    where attrelid = to_regclass('supabase_migrations.schema_migrations')
        and attname = 'checksum'
        and not attisdropped
)

-- make_ledger -- the table in which Supabase's own tool keeps what was applied, with our checksum beside it
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
    version text primary key,
    statements text[],
    name text
);
alter table supabase_migrations.schema_migrations add column if not exists checksum text;

-- applied_migrations -- what the ledger says
select version, name, checksum from supabase_migrations.schema_migrations

-- applied_migrations_unchecked -- what it says where only Supabase's own tool used it
select version, name, null::text as checksum from supabase_migrations.schema_migrations

-- record_migration -- part of the migration's own transaction
insert into supabase_migrations.schema_migrations (version, statements, name, checksum)
values (%(version)s, array[%(text)s::text], %(name)s, %(checksum)s)
on conflict (version) do update set checksum = excluded.checksum

-- applied_models -- which text of each model this database has
select name, checksum from scout_edge.models

-- record_model -- part of the models' transaction
insert into scout_edge.models (name, checksum)
values (%(name)s, %(checksum)s)
on conflict (name) do update set checksum = excluded.checksum, applied_at = now()

-- models_due -- those that a dump may not have are applied again by the next migrate: what lies in schemas of others
update scout_edge.models
set checksum = ''
where name like 'supabase/%%'
    or (name = 'edge/020_heartbeat' and to_regprocedure('public.heartbeat(jsonb)') is null)

-- relations_in_the_way -- of the tables and views about to be made, those that are there, with kind and columns
select
    asked.name,
    case pg_class.relkind
        when 'r' then 'table'
        when 'p' then 'table'
        when 'v' then 'view'
        when 'm' then 'materialized view'
        when 'f' then 'foreign table'
        when 'S' then 'sequence'
        when 'c' then 'type'
        else 'index'
    end as kind,
    coalesce(
        (
            select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
            from pg_attribute
            where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        ),
        ''
    ) as columns
from unnest(%(names)s::text[]) with ordinality as asked (name, place)
join pg_class on pg_class.oid = to_regclass(asked.name)
order by asked.place

-- functions_in_the_way -- the same of functions, with their arguments
select asked.name, 'function' as kind, pg_get_function_identity_arguments(pg_proc.oid) as columns
from unnest(%(names)s::text[]) with ordinality as asked (name, place)
join pg_namespace on pg_namespace.nspname = split_part(asked.name, '.', 1)
join pg_proc on pg_proc.pronamespace = pg_namespace.oid and pg_proc.proname = split_part(asked.name, '.', 2)
order by asked.place, columns

-- columns_of -- the columns of a table and their types
select attname, format_type(atttypid, null)
from pg_attribute
where attrelid = to_regclass(%(name)s) and attnum > 0 and not attisdropped

-- make_before -- where things are moved that stand in the way
create schema if not exists scout_before

-- reached_by_public -- what a device's token can reach only because everybody may, whoever made it; an extension's once
with granted as (
    select
        case when pg_proc.prokind = 'p' then 'procedure ' else 'function ' end || pg_proc.oid::regprocedure as name,
        'pg_proc'::regclass as class,
        pg_proc.oid,
        pg_proc.pronamespace as schema,
        pg_proc.proacl as privileges
    from pg_proc
    where has_function_privilege('edge_uploader', pg_proc.oid, 'execute')
    union all
    select
        case when pg_class.relkind = 'S' then 'sequence ' else 'relation ' end || pg_class.oid::regclass,
        'pg_class'::regclass,
        pg_class.oid,
        pg_class.relnamespace,
        pg_class.relacl
    from pg_class
    where case
        when pg_class.relkind = 'S' then has_sequence_privilege('edge_uploader', pg_class.oid, 'usage, select, update')
        when pg_class.relkind in ('r', 'p', 'v', 'm', 'f')
            then has_table_privilege('edge_uploader', pg_class.oid, 'select, insert, update, delete, truncate')
    end
)
select coalesce('extension ' || pg_extension.extname, granted.name) as name
from granted
join pg_namespace on pg_namespace.oid = granted.schema
left join pg_depend
    on pg_depend.classid = granted.class and pg_depend.objid = granted.oid and pg_depend.deptype = 'e'
left join pg_extension on pg_extension.oid = pg_depend.refobjid
where pg_namespace.nspname <> 'information_schema'
    and pg_namespace.nspname !~ '^pg_'
    and has_schema_privilege('edge_uploader', pg_namespace.oid, 'usage')
    and not exists (
        select
        from aclexplode(granted.privileges) as given
        where given.grantee = 'edge_uploader'::regrole
    )
group by 1
order by 1

-- settle_rights -- what is ours belongs to its owner, whatever default privileges gave away; gold and the dimensions may be read by analysts
do $$
declare
    statement text;
begin
    for statement in
        with asked as (
            select unnest({names}::text[]) as name
        ),
        ours as (
            select
                'table' as kind,
                pg_class.oid::regclass::text as name,
                relowner as owner,
                coalesce(relacl, acldefault('r', relowner)) as privileges,
                asked.name ~ '^(scout[.](gold|dim)_|scout_gold[.])' as is_for_analysts
            from asked
            join pg_class on pg_class.oid = to_regclass(asked.name)
            where relkind in ('r', 'p', 'v', 'm')
            union all
            -- The numbers of an identity column come from one.
            select
                'sequence',
                pg_class.oid::regclass::text,
                relowner,
                coalesce(relacl, acldefault('s', relowner)),
                false
            from asked
            join pg_depend on refclassid = 'pg_class'::regclass and refobjid = to_regclass(asked.name)
            join pg_class on classid = 'pg_class'::regclass and pg_class.oid = objid
            where relkind = 'S' and deptype in ('a', 'i')
            union all
            select
                'function',
                pg_proc.oid::regprocedure::text,
                proowner,
                coalesce(proacl, acldefault('f', proowner)),
                false
            from asked
            join pg_proc on pronamespace::regnamespace || '.' || proname = asked.name
        ),
        others as (
            select 0::oid as grantee, 'public' as name
            union all
            select oid, rolname from pg_roles where rolname in ('anon', 'authenticated')
        )
        select distinct format('revoke all on %s %s from %s', ours.kind, ours.name, others.name)
        from ours
        cross join lateral aclexplode(privileges) as given
        join others using (grantee)
        where pg_has_role(owner, 'usage')
        union all
        select format('grant select on %s to %s', ours.name, rolname)
        from ours
        join pg_roles on rolname = 'scout_analyst'
        where is_for_analysts
            and pg_has_role(owner, 'usage')
            and not exists (
                select from aclexplode(privileges) where grantee = pg_roles.oid and privilege_type = 'SELECT'
            )
        union all
        select format('grant usage on schema %s to %s', nspname, rolname)
        from pg_namespace
        join pg_roles on rolname = 'scout_analyst'
        where nspname in ('scout', 'scout_gold')
            and not exists (select from aclexplode(nspacl) where grantee = pg_roles.oid and privilege_type = 'USAGE')
    loop
        execute statement;
    end loop;
end
$$
