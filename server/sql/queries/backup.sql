-- export_snapshot -- what pg_dump shall see: exactly what this transaction sees
select pg_export_snapshot()

-- rows -- how much there is, to be compared after a restore
select
    (select count(*) from scout_edge.devices) as devices,
    (select count(*) from scout_bronze.files) as files,
    (select count(*) from scout_bronze.transactions_raw) as bronze,
    (select count(*) from scout.silver_transactions) as silver

-- note_backup -- a backup is complete
update scout_edge.settings set backed_up_at = now()

-- roles -- whom this database speaks of: owners, and whoever was given something
select distinct rolname::text
from pg_shdepend
join pg_roles on pg_roles.oid = refobjid
where refclassid = 'pg_authid'::regclass
    and dbid = (select oid from pg_database where datname = current_database())
    and rolname !~ '^pg_'
order by 1

-- roles_there -- which of these roles the cluster has
select rolname::text from pg_roles where rolname = any(%(names)s::text[])

-- make_role -- one that a restored database speaks of: nobody logs in as it
create role {name} nologin

-- schemas_there -- which of these schemas hold anything
select distinct nspname::text
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where nspname = any(%(names)s::text[])
order by 1
