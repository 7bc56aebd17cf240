-- Where Supabase's storage server is: the private bucket, and who may put what into it.
--
-- May be relied on: a device's token can insert objects DAY/<its own device id>/FILE and nothing else, not even
-- read one. The storage server asks by an INSERT without RETURNING in the token's role, before it reads a byte,
-- and rolls it back; `metadata` holds the announced length then (none with chunked transfer, which so is refused).
insert into storage.buckets (id, name, public, file_size_limit)
values ('scout-ingest', 'scout-ingest', false, 52428800)
on conflict (id) do nothing;

do $$
begin
    if (select public from storage.buckets where id = 'scout-ingest') then
        raise exception 'the bucket scout-ingest is public'
            using hint = 'Sales would be readable by anyone. Make it private in the project''s storage settings.';
    end if;
end
$$;

create or replace function scout_edge.calendar_day(day text) returns date
language plpgsql immutable
set search_path = ''
as $$
begin
    if day ~ '^20[0-9]{2}-[0-9]{2}-[0-9]{2}$' then
        return make_date(left(day, 4)::integer, substr(day, 6, 2)::integer, right(day, 2)::integer);
    end if;
    return null;
exception
    when datetime_field_overflow then return null;
end
$$;
comment on function scout_edge.calendar_day is 'The day that the text writes, from 2000 to 2099; null for none.';
revoke all on function scout_edge.calendar_day(text) from public;

create or replace function scout_edge.may_upload(object_name text, object_metadata jsonb) returns boolean
language plpgsql stable
security definer
set search_path = ''
as $$
declare
    claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    parts constant text[] := string_to_array(object_name, '/');
    device constant text := claims ->> 'sub';
    days_max constant integer := 30;
    -- As numbers: a claim in any other form raises, and is refused below.
    issued_at numeric;
    expires_at numeric;
begin
    issued_at := claims ->> 'iat';
    expires_at := claims ->> 'exp';
    return coalesce(
        claims ->> 'role' = 'edge_uploader'
        and expires_at - issued_at <= days_max * 86400
        and cardinality(parts) = 3
        and scout_edge.calendar_day(parts[1]) is not null
        and parts[2] = device
        and length(parts[3]) <= 128
        and parts[3] ~ '^[A-Za-z0-9][A-Za-z0-9._-]*[.](jsonl|json|gz|zst)$'
        and (object_metadata ->> 'contentLength')::bigint between 1 and 52428800
        and scout_edge.token_refusal('edge_uploader', device, floor(issued_at)::bigint, claims ->> 'jti') is null,
        false
    );
exception
    when data_exception then return false;
end
$$;
comment on function scout_edge.may_upload is
    'Whether the token of this request may insert an object of this name: its own device''s folder, a real day, a
     strict file name, 1 byte to 50 MiB, a known device, and a token of at most 30 days that still counts.';
revoke all on function scout_edge.may_upload(text, jsonb) from public;

do $$
declare
    other text;
begin
    for other in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated', 'service_role')
    loop
        execute format('revoke all on function scout_edge.may_upload(text, jsonb) from %I', other);
        execute format('revoke all on function scout_edge.calendar_day(text) from %I', other);
    end loop;
end
$$;
grant execute on function scout_edge.may_upload(text, jsonb) to edge_uploader;
grant usage on schema storage to edge_uploader;

-- Only the columns that the storage server's own insert names, of those that this version of it has.
do $$
begin
    execute format(
        'grant insert (%s) on storage.objects to edge_uploader',
        (
            select string_agg(quote_ident(attname), ', ' order by attnum)
            from pg_catalog.pg_attribute
            where attrelid = 'storage.objects'::regclass
                and attname in ('bucket_id', 'name', 'version', 'metadata', 'owner_id', 'user_metadata')
                and not attisdropped
        )
    );
end
$$;

drop policy if exists scout_edge_may_upload on storage.objects;
create policy scout_edge_may_upload on storage.objects
as permissive for insert to edge_uploader
with check (bucket_id = 'scout-ingest' and scout_edge.may_upload(name, metadata));

-- A project's own policies for everybody must not widen what a device may do.
drop policy if exists scout_edge_nothing_else on storage.objects;
create policy scout_edge_nothing_else on storage.objects
as restrictive for all to edge_uploader
using (false)
with check (bucket_id = 'scout-ingest' and scout_edge.may_upload(name, metadata));
