-- The deployment that scout-edge continues, small: what it has under names that are ours.
create schema scout;
create schema scout_gold;
create type scout.payment_method as enum ('cash', 'gcash', 'card');
create table scout.dim_store (id bigserial primary key, name text);
insert into scout.dim_store (name) values ('Aling Nena');
create table scout.silver_transactions (
    id bigserial primary key,
    store_id bigint references scout.dim_store,
    payment_method scout.payment_method,
    peso_value numeric
);
insert into scout.silver_transactions (store_id, payment_method, peso_value) values (1, 'cash', 150.50);
create materialized view scout.gold_txn_daily as select count(*) as transactions from scout.silver_transactions;
create view scout_gold.daily_transactions as select transactions from scout.gold_txn_daily;

create table scout.bronze_edge_raw (
    id bigserial primary key,
    device_id text,
    captured_at timestamptz,
    src_filename text,
    payload jsonb,
    ingested_at timestamptz default now()
);
insert into scout.bronze_edge_raw (device_id, captured_at, src_filename, payload)
select
    'scoutpi-0002', '2026-01-20 10:00+08', 'scoutpi-0002/' || n || '.json',
    jsonb_build_object('transaction_id', 'e-' || n, 'peso_value', n)
from generate_series(1, 4) as n;

-- Two rows of one sale lie in it: no constraint ever refused them.
create table scout.bronze_transactions_raw (
    ingest_id bigserial primary key,
    payload jsonb,
    source_id text,
    ingested_at timestamptz default now(),
    processed boolean
);
insert into scout.bronze_transactions_raw (payload, source_id, processed)
select
    jsonb_build_object(
        'transaction_id', 't-' || greatest(n, 2), 'store_id', '102', 'peso_value', 10.25,
        'timestamp', '2026-01-20T10:30:00+08:00'
    ),
    'scoutpi-0002',
    true
from generate_series(1, 1740) as n;
