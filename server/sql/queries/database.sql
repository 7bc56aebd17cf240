-- lock_migrations -- one migration at a time in this database, until this session unlocks or ends
select pg_advisory_lock(hashtext('scout-edge migrations'))

-- unlock_migrations -- let the next one in
select pg_advisory_unlock(hashtext('scout-edge migrations'))

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
