-- Who a device is: the public half of its key, the one-time codes by which a key comes here, and the nonces that
-- were used up. The private half never leaves the device.
alter table scout_edge.devices
    add column public_key bytea check (octet_length(public_key) = 32),
    add column enrolled_at timestamptz,
    add column renew_tokens_before timestamptz not null default '-infinity',
    add constraint devices_enrolled check ((public_key is null) = (enrolled_at is null));
comment on column scout_edge.devices.public_key is
    'Ed25519, 32 bytes. Whoever proves to hold the other half gets this device''s tokens; null for none.';
comment on column scout_edge.devices.renew_tokens_before is
    'An operator asked for another token: those issued before still count, and the device is asked to renew them.';

create table scout_edge.enrolments (
    code_sha256 bytea primary key check (octet_length(code_sha256) = 32),
    device_id text not null references scout_edge.devices,
    made_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    public_key bytea check (octet_length(public_key) = 32),
    constraint enrolments_used check ((used_at is null) = (public_key is null))
);
create index enrolments_device on scout_edge.enrolments (device_id);
comment on table scout_edge.enrolments is
    'One-time codes, by their sha256. A used one serves only the key that used it, for an answer that was lost.';

create table scout_edge.used_nonces (
    nonce bytea primary key,
    expires_at timestamptz not null
);
create index used_nonces_expires on scout_edge.used_nonces (expires_at);
comment on table scout_edge.used_nonces is
    'Nonces of assertions that were accepted, until they expire: none is accepted twice. Only who holds a device''s
     key adds a row.';

alter table scout_edge.settings add column renewals_held_since timestamptz;
comment on column scout_edge.settings.renewals_held_since is
    'Since when no token is issued by key or code: a restored backup forgot who was revoked, and an operator has not
     confirmed the list yet. Null: they are issued.';
