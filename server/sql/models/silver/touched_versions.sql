-- Grain: one row per version of a sale that these loads touched: those they brought or made due again, and of each
-- sale whose latest version is among them the one that was the latest before.
-- Whatever silver says otherwise than before these loads, and whatever it said instead, one of these versions says.
create or replace function scout.touched_versions(loads bigint[])
returns table (
    source_id text,
    transaction_key text,
    raw_id bigint,
    is_latest boolean,
    device_id text,
    store_id text,
    sku text,
    product_category text,
    brand_name text
)
language plpgsql stable
-- Silver is looked up row by row: joined as a whole, it would cost more with every row that is there.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    again constant bigint[] := scout_bronze.rows_due_again(loads);
begin
    return query
    with arrived as materialized (
        select raw_id
        from scout.bronze_transaction_rows
        where load_id = any (loads) or raw_id = any (again)
    ),
    latest as materialized (
        select sale.*
        from arrived
        join scout.silver_transactions as sale using (raw_id)
    )
    select source_id, transaction_key, raw_id, true, device_id, store_id, sku, product_category, brand_name
    from latest
    union all
    select source_id, transaction_key, raw_id, false, device_id, store_id, sku, product_category, brand_name
    from arrived
    join scout.silver_transaction_versions using (raw_id)
    union all
    select
        former.source_id, former.transaction_key, former.raw_id, false, former.device_id, former.store_id,
        former.sku, former.product_category, former.brand_name
    from latest
    cross join lateral (
        select *
        from scout.silver_transaction_versions as version
        where version.source_id = latest.source_id
            and version.transaction_key = latest.transaction_key
            and version.raw_id not in (select raw_id from arrived)
        order by version.revision desc nulls last, version.version_at desc nulls last, version.version desc
        limit 1
    ) as former;
end
$$;
comment on function scout.touched_versions is
    'The versions of sales that these loads brought, made due again or took the place of; is_latest: it is in
     scout.silver_transactions, else in scout.silver_transaction_versions.';
