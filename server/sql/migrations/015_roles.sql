-- The role of a device's token: it may call home and, on Supabase, insert objects; nothing else, not even read.
-- Roles belong to the whole cluster: another database of it may have made this one already.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'edge_uploader') then
        create role edge_uploader nologin noinherit;
    end if;
exception
    -- Another database of this cluster was faster.
    when duplicate_object or unique_violation then null;
end
$$;

do $$
begin
    -- `set role edge_uploader` is how a request runs: ours as the owner of this database, Supabase's as
    -- its authenticator. A superuser needs no grant.
    if not pg_catalog.pg_has_role(current_user, 'edge_uploader', 'member') then
        execute pg_catalog.format('grant edge_uploader to %I', current_user);
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticator')
        and not pg_catalog.pg_has_role('authenticator', 'edge_uploader', 'member')
    then
        grant edge_uploader to authenticator;
    end if;
end
$$;
