-- The bucket as devices need it: private, 50 MiB an object, of any type. Only where check.sql asks for it; where there is
-- no bucket, `scout-server migrate` makes this one by itself. It may be repeated. Run it as postgres.
insert into storage.buckets (id, name, public, file_size_limit)
values ('scout-ingest', 'scout-ingest', false, 52428800)
on conflict (id) do update
set public = false, file_size_limit = excluded.file_size_limit, allowed_mime_types = null;
