-- Bronze: every record that ever arrived, once, byte for byte, with the ledger that proves it.
create schema if not exists scout_bronze;

create table scout_bronze.loads (
    load_id bigint generated always as identity primary key,
    committed_at timestamptz not null default now(),
    rows integer not null,
    error text,
    tried_at timestamptz
);
comment on table scout_bronze.loads is
    'One row per commit into the landing table; the ETL that moves its rows removes it. Work is found by
     what is here, never by a clock or a high-water mark: a slow transaction commits late.';

create table scout_bronze.files (
    file_id bigint generated always as identity primary key,
    bucket text not null,
    key text not null,
    version text not null default '',
    device_id text not null,
    state text not null check (state in ('found', 'loaded', 'quarantined')),
    found_at timestamptz not null default now(),
    loaded_at timestamptz,
    load_id bigint,
    -- Of a batch of the agent's; null for what others upload.
    batch text,
    resend integer,
    epoch text,
    first_seq bigint,
    last_seq bigint,
    sha256 text,
    bytes bigint,
    lines integer,
    accepted integer,
    duplicates integer,
    rejected integer,
    reason text,
    tries integer not null default 0,
    retry_at timestamptz,
    unique (bucket, key, version)
);
create index files_found on scout_bronze.files (file_id) where state = 'found';
create index files_batch on scout_bronze.files (batch) where batch is not null;
create index files_key on scout_bronze.files (key);
create index files_device on scout_bronze.files (device_id, loaded_at);
comment on table scout_bronze.files is
    'The ledger: one row per object or posted batch, committed with its rows and kept for ever.
     `found` waits for a loader, `loaded` is settled, `quarantined` was unreadable or not what its name says.';
comment on column scout_bronze.files.batch is
    'Object key of the batch that this row covers, without the suffix of a copy (`-r2`); `resend` has its number.';
comment on column scout_bronze.files.sha256 is 'Of the uncompressed content, in hex.';
comment on column scout_bronze.files.bytes is 'As the bucket lists it; once loaded, of the uncompressed content.';
comment on column scout_bronze.files.tries is
    'How often the database refused this object alone; the next try is not before `retry_at`.';

create function scout_bronze.is_settled(device_id text, key text) returns boolean
language sql stable
set search_path = ''
return exists (
    select
    from scout_bronze.files
    where files.batch = regexp_replace($2, '-r[0-9]+[.]jsonl[.]gz$', '.jsonl.gz')
        and files.device_id = $1
        and files.state = 'loaded'
);
comment on function scout_bronze.is_settled is
    'Whether the ledger covers exactly this batch of this device, by whichever path or copy it arrived. Reads
     one index entry. The ledger row and the batch''s lines were committed together.';

create table scout_bronze.transactions_raw (
    raw_id bigint generated always as identity primary key,
    load_id bigint not null,
    device_id text not null,
    -- A record of the agent's has epoch, seq and id; what others upload has an identity.
    epoch text,
    seq bigint,
    id uuid,
    identity bytea,
    captured_at timestamptz,
    clock text,
    boot text,
    mono_ms bigint,
    payload text not null,
    extra text,
    claimed_device_id text,
    object_key text not null,
    line integer not null,
    ingested_at timestamptz not null default now(),
    constraint transactions_raw_kind
        check ((epoch is null) = (seq is null) and (epoch is null) = (id is null)
           and (epoch is null) <> (identity is null)),
    constraint transactions_raw_record unique (device_id, epoch, seq, id),
    constraint transactions_raw_foreign unique (device_id, identity)
);
create index transactions_raw_load on scout_bronze.transactions_raw (load_id);
comment on table scout_bronze.transactions_raw is
    'Landing table: one row per record. `payload` is the till''s own text, never rewritten.';
comment on column scout_bronze.transactions_raw.identity is
    'sha256 of transaction_id and the text; without an id, of object key, place in it and the text (zero bytes
     between them).';
comment on column scout_bronze.transactions_raw.claimed_device_id is
    'The device that the payload names, where it differs from the one that delivered it.';

create table scout_bronze.retired (
    device_id text not null,
    epoch text not null,
    seqs int8multirange not null,
    primary key (device_id, epoch)
);
create table scout_bronze.retired_identities (
    device_id text not null,
    identity bytea not null,
    primary key (device_id, identity)
);
comment on table scout_bronze.retired is
    'Records whose raw rows were removed after production; a late copy of them is a duplicate.';

create table scout_bronze.quarantine (
    quarantine_id bigint generated always as identity primary key,
    file_id bigint not null references scout_bronze.files,
    kind text not null check (kind in ('line', 'object')),
    device_id text not null,
    epoch text,
    seq bigint,
    line integer,
    reason text not null,
    raw bytea,
    identity bytea not null,
    held_at timestamptz not null default now(),
    unique (device_id, identity)
);
create index quarantine_seq on scout_bronze.quarantine (device_id, epoch, seq) where kind = 'line';
comment on table scout_bronze.quarantine is
    'A line refused as data is held here and counts as received; an object that is unreadable or not what its
     name says covers nothing. Never pruned.';
comment on column scout_bronze.quarantine.identity is
    'sha256 that makes a second copy of the same refusal a duplicate.';

create table scout_bronze.forks (
    device_id text not null,
    epoch text not null,
    seq bigint not null,
    id uuid not null,
    first_id uuid not null,
    seen_at timestamptz not null default now(),
    primary key (device_id, epoch, seq, id)
);
comment on table scout_bronze.forks is
    'A second id at one (device, epoch, seq): a copied spool. Both records are in bronze.';
