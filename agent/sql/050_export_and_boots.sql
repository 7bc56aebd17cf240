-- What went out on a stick, and what is known of each boot's clock.

-- When a batch was last written to a stick. Its server may have it by that way, so its receipt is awaited.
alter table batches add column exported_at text;
create index batches_exported on batches (number)
where exported_at is not null and state in ('waiting', 'set_aside');

-- The best measurement of each boot: the server's time when the boot's monotonic clock read 0.
-- `heard` once a report with this measurement was answered.
create table boots (
    boot text primary key,
    zero_at text not null,
    error_ms integer not null,
    heard integer not null default 0 check (heard in (0, 1))
) strict, without rowid;
