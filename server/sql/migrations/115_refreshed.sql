-- Gold that is kept rather than computed when it is asked for.
create table scout.refreshed (
    relation text primary key,
    refreshed_at timestamptz not null,
    took interval not null,
    newest_row bigint
);
comment on table scout.refreshed is
    'One row per materialized view of gold: when it was last refreshed.';
comment on column scout.refreshed.refreshed_at is 'When that began: it shows what silver held then.';
comment on column scout.refreshed.newest_row is
    'The highest scout.bronze_transactions_raw.ingest_id of then: while there is none above it, nothing came.';
