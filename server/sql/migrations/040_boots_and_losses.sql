-- When each boot of a device began by our clock, what makes its rows due again, and the seqs that a device lost.

create table scout_edge.boots (
    device_id text not null references scout_edge.devices,
    boot text not null,
    zero_at timestamptz not null,
    error_ms integer not null check (error_ms >= 0),
    heard_at timestamptz not null default now(),
    primary key (device_id, boot)
);
comment on table scout_edge.boots is
    'One row per boot that a device measured against our clock. A record of that boot which was taken while the
     device''s clock was not synchronised was captured at zero_at plus its mono_ms, right to within error_ms.';

alter table scout_bronze.loads add column device_id text;
alter table scout_bronze.loads add column boot text;
comment on column scout_bronze.loads.boot is
    'Set where no commit but a new measurement of this boot of device_id is to be moved: silver types its rows anew.';

-- A boot's rows whose time its measurement corrects: few, of few boots.
create index transactions_raw_boot on scout_bronze.transactions_raw (device_id, boot) where clock = 'unsynced';
create index bronze_transactions_raw_boot on scout.bronze_transactions_raw (device_id, boot) where clock = 'unsynced';

-- Every version of a sale: a corrected time may make another one the latest. Longer text would not fit an entry.
create index silver_edge_events_sale on scout.silver_edge_events (source_id, left(transaction_id, 200))
where transaction_id is not null;

alter table scout_edge.heads add column lost int8multirange not null default '{}';
comment on column scout_edge.heads.lost is
    'Seqs that the device knows to have lost, as a damaged card loses them; as last reported.';
