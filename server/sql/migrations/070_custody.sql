-- Custody: what is missing and asked for again by itself, what operators accept as lost, what devices can't mean.

create table scout_bronze.accepted_gaps (
    acceptance_id bigint generated always as identity primary key,
    device_id text not null,
    epoch text not null,
    seqs int8multirange not null check (seqs <> '{}'),
    why text not null check (why <> ''),
    accepted_at timestamptz not null default now()
);
create index accepted_gaps_epoch on scout_bronze.accepted_gaps (device_id, epoch);
comment on table scout_bronze.accepted_gaps is
    'Seqs that were missing when an operator accepted that they are lost, and why. Of one epoch no two rows overlap.
     What arrives after all is missing no more, whatever stands here.';

create table scout_bronze.repairs (
    device_id text not null,
    epoch text not null,
    seqs int8multirange not null,
    tries integer not null,
    asked integer not null default 0,
    tried_at timestamptz not null,
    next_at timestamptz not null,
    primary key (device_id, epoch)
);
create index repairs_next on scout_bronze.repairs (next_at);
comment on table scout_bronze.repairs is
    'One row per epoch with missing seqs that the server tries to get again by itself: each try waits twice as long
     as the one before, unless more is missing than then. Removed once nothing is.';
comment on column scout_bronze.repairs.asked is
    'How often the device was asked for these. A device that has answered a few times has them no more.';

-- Every check is due at once where none was made yet.
alter table scout_edge.heads add column checked_at timestamptz not null default '-infinity';
create index heads_checked on scout_edge.heads (checked_at);
comment on column scout_edge.heads.checked_at is 'When the server last looked for missing seqs of this epoch.';
comment on column scout_edge.heads.head is
    'The highest seq ever reported that was believed: a report that rises by more than 1,000,000 is not, unless rows
     prove it (scout_edge.note_epoch).';

create table scout_edge.asked_anew (
    device_id text primary key references scout_edge.devices,
    times integer not null,
    asked_at timestamptz not null
);
comment on table scout_edge.asked_anew is
    'How often a device was asked, by a generation of its own, to ask again about every batch that it keeps.';

create table scout_edge.alarms (
    device_id text not null references scout_edge.devices,
    kind text not null check (kind in ('head_jumped')),
    detail text not null,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    resolved_at timestamptz,
    primary key (device_id, kind)
);
comment on table scout_edge.alarms is
    'What a device reported that can''t be so: its newest alarm of each kind, open until resolved_at is set.';

alter table scout_edge.settings
    add column silent_after_h integer not null default 24 check (silent_after_h between 1 and 8760);
comment on column scout_edge.settings.silent_after_h is
    'A device that called home before, and since then not for so many hours, should have spoken.';

-- A batch that was settled, of which rows are missing in bronze and which can't be loaded again: it covers nothing.
alter table scout_bronze.files drop constraint files_state_check;
alter table scout_bronze.files
    add constraint files_state_check check (state in ('found', 'loaded', 'quarantined', 'gone')),
    add column former_loads bigint[];
create index files_run on scout_bronze.files (device_id, epoch, first_seq) where epoch is not null;
comment on column scout_bronze.files.former_loads is
    'Loads that brought rows of this file before it was loaded once more.';
comment on table scout_bronze.files is
    'The ledger: one row per object or posted batch, committed with its rows and kept for ever.
     `found` waits for a loader, `loaded` is settled, `quarantined` was unreadable or not what its name says, `gone`
     was settled until rows of it were missed that it can''t bring again.';
