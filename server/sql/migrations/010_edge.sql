-- The fleet: devices, their tokens, what they report. `public.heartbeat` is the one call home.
-- Times of tokens are whole seconds, as in the tokens themselves.
create schema if not exists scout_edge;

create table scout_edge.devices (
    device_id text primary key
        check (device_id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    source text not null,
    added_at timestamptz not null default now(),
    revoked_at timestamptz,
    tokens_valid_from timestamptz not null default '-infinity'
);
comment on table scout_edge.devices is 'One row per device that may deliver.';
comment on column scout_edge.devices.source is
    'Whose sales these are: the device itself, unless an operator joins the devices of one till.';
comment on column scout_edge.devices.tokens_valid_from is 'Tokens issued before this are refused.';

create table scout_edge.tokens (
    jti uuid primary key,
    subject text not null,
    role text not null,
    issued_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index tokens_subject on scout_edge.tokens (subject);
comment on table scout_edge.tokens is 'Every token ever issued, by its id. The token itself is never stored.';

create table scout_edge.heartbeats (
    device_id text primary key references scout_edge.devices,
    heard_at timestamptz not null,
    report jsonb not null
);
comment on table scout_edge.heartbeats is 'The newest report of each device.';

create table scout_edge.heartbeat_history (
    device_id text not null references scout_edge.devices,
    hour timestamptz not null,
    heard_at timestamptz not null,
    report jsonb not null,
    primary key (device_id, hour)
);
comment on table scout_edge.heartbeat_history is 'The last report of each device in each hour.';

create table scout_edge.heads (
    device_id text not null references scout_edge.devices,
    epoch text not null,
    head bigint not null,
    unsettled int8multirange not null,
    first_heard_at timestamptz not null,
    last_heard_at timestamptz not null,
    primary key (device_id, epoch)
);
comment on table scout_edge.heads is
    'The highest seq ever reported of each epoch, and the runs that the device still answers for.';

create table scout_edge.awaited (
    device_id text not null references scout_edge.devices,
    key text not null,
    asked_at timestamptz not null default now(),
    checked_at timestamptz,
    resend integer not null default 0,
    resend_at timestamptz,
    primary key (device_id, key)
);
create index awaited_checked on scout_edge.awaited (checked_at nulls first);
comment on table scout_edge.awaited is
    'Batches that a device delivered and that no ledger row covers yet. The loader looks each up by its
     exact name; where the object is absent or damaged it raises `resend`, and the next heartbeat asks.';
comment on column scout_edge.awaited.asked_at is
    'When the device first asked: asking again must not move it, or an absent object would never be old enough.';
comment on column scout_edge.awaited.checked_at is 'When the loader last looked the name up.';
comment on column scout_edge.awaited.resend is 'Number of the copy that the device is asked for; 0 for none.';
comment on column scout_edge.awaited.resend_at is 'Since when that copy is asked for.';

create table scout_edge.settings (
    only_row boolean primary key default true check (only_row),
    generation uuid not null default gen_random_uuid(),
    keep_for_days integer not null default 8 check (keep_for_days between 1 and 365)
);
insert into scout_edge.settings default values;
comment on column scout_edge.settings.generation is
    'Which life of this database this is; a restored backup gets a new one, and devices ask again.';

create table scout_edge.models (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
comment on table scout_edge.models is
    'Which text of each file below server/sql/models this database has; a changed file is applied again.';
