-- A stand-in for what Supabase's storage server keeps in a project's database, as far as grants and policies
-- are concerned: its roles, tables and owner. Made by a superuser, before any migration of ours.
create schema storage authorization supabase_storage_admin;
set role supabase_storage_admin;
create table storage.buckets (
    id text primary key,
    name text not null unique,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    public boolean default false,
    file_size_limit bigint,
    allowed_mime_types text[],
    owner_id text
);
create table storage.objects (
    id uuid primary key default gen_random_uuid(),
    bucket_id text references storage.buckets,
    name text,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_accessed_at timestamptz default now(),
    metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored,
    version text,
    owner_id text,
    user_metadata jsonb
);
create unique index bucketid_objname on storage.objects (bucket_id, name);
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
grant usage on schema storage to anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to anon, authenticated, service_role;
grant usage on schema storage to project_owner with grant option;
grant select, insert on storage.buckets to project_owner;
grant insert on storage.objects to project_owner with grant option;
-- A policy that many projects have, and that must not widen what a device may do.
create policy everybody on storage.objects as permissive for all to public using (true) with check (true);
create policy owner_sees_buckets on storage.buckets as permissive for all to project_owner
using (true) with check (true);
reset role;
