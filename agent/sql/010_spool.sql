-- The spool's first shape. A released file of this kind is never edited.
create table device (
    only_row integer primary key check (only_row = 1),
    device_id text not null,
    generation text
) strict;

-- An epoch begins at the first intake after a boot. `head` is the counter that gives seqs: it is committed
-- with the records, and stays when they are forgotten.
create table epochs (
    number integer primary key,
    epoch text not null unique,
    boot text not null,
    opened_at text not null,
    head integer not null default 0,
    sealed_to integer not null default 0,
    unsealed_bytes integer not null default 0,
    unsealed_since_mono_ms integer
) strict;

-- One record a row, as the line that travels. place = epochs.number * 10^12 + seq: rows lie on the card in
-- the order in which they are written, read and forgotten.
create table records (
    place integer primary key,
    captured_at text not null,
    line text not null
) strict;

create table batches (
    number integer primary key,
    epoch_number integer not null references epochs (number),
    first_seq integer not null,
    last_seq integer not null,
    key text not null,
    sha256 text not null,
    bytes integer not null,
    sealed_at text not null,
    state text not null default 'waiting' check (state in ('waiting', 'accepted', 'set_aside', 'settled')),
    resend integer not null default 0,
    refusals integer not null default 0,
    refusal text,
    set_aside_mono_ms integer,
    set_aside_boot text,
    accepted_at text,
    accepted_by text,
    settled_at text
) strict;
create index batches_open on batches (state, number) where state <> 'settled';
create index batches_settled on batches (settled_at) where state = 'settled';

-- A file that intake has moved into processing/, and how much of it is in the spool. Its row is written in
-- the transaction that stores its records, and removed once the file is.
create table taken_files (
    name blob primary key,
    bytes_taken integer not null
) strict, without rowid;

-- agent/spool.py refuses a file of a higher version than its own.
pragma user_version = 1;
