-- Operating: rows that leave the landing table once production has them, and lags that the ETL measures itself.

-- What is oldest is found without reading the rest. Rows of one commit share an entry, so this one is small.
create index transactions_raw_ingested on scout_bronze.transactions_raw (ingested_at);

-- Whether production knows a record, and which ids it knows at a seq, once the landing table has neither any more.
create index bronze_transactions_raw_record on scout.bronze_transactions_raw (epoch, seq, record_id)
where record_id is not null;

create table scout_bronze.retired_rows (
    device_id text not null,
    object_key text not null,
    load_id bigint not null,
    rows bigint not null check (rows > 0),
    primary key (device_id, object_key, load_id)
);
comment on table scout_bronze.retired_rows is
    'One row per delivery and load of which rows were removed from the landing table after production, and how many:
     the ledger counts them on.';
comment on table scout_bronze.retired is
    'One row per epoch of which records were removed from the landing table after production. A late copy of one is a
     duplicate; another id at a retired seq is a fork, and lands: production tells them apart.';
comment on table scout_bronze.retired_identities is
    'One row per line of others that was removed from the landing table after production. A late copy is a duplicate.';

create table scout_bronze.lags (
    hour timestamptz not null,
    device_id text not null,
    kind text not null check (kind in ('etl', 'capture')),
    below_s integer not null,
    rows bigint not null,
    primary key (hour, device_id, kind, below_s)
-- Counts are raised in place.
) with (fillfactor = 80);
comment on table scout_bronze.lags is
    'One row per hour (UTC), device, kind of lag and bucket: how many rows that the ETL moved in that hour had a lag
     below below_s and not below the bound before it (scout_bronze.lag_bounds_s). Kept for 8 days. `etl`: from bronze''s
     commit until silver and gold show the row. `capture`: how old the sale was when bronze received it, where known.';
comment on column scout_bronze.lags.below_s is
    'Upper bound of the bucket, in seconds. The highest has all that is more, too; the lowest what is negative.';
