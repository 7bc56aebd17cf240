-- Grain: one row per (source_id, transaction_key), the latest version; the earlier ones are rows of
-- scout.silver_transaction_versions. scout.type_sales reads them from bronze.
--
-- The latest version has the highest revision, where the till counts them, then was captured last (by corrected
-- time), then has the highest id: never the one that arrived last, so any order and any repetition of loads ends in
-- the same rows.
create or replace function scout.refresh_silver_transactions(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
-- Silver is looked up row by row: joined as a whole, it would cost more with every row that is there.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    arrived scout.silver_transactions[];
    arrived_ids bigint[];
    latest scout.silver_transactions[];
    earlier scout.silver_transactions[];
    gone_sources text[];
    gone_keys text[];
    sales_written bigint;
    fields_refused bigint;
begin
    select typed, type_sales.fields_refused into arrived, fields_refused from scout.type_sales(loads);
    arrived_ids := array(select raw_id from unnest(arrived));

    -- All versions of the sales that the arrived ones tell of, and of those that they told of when they were typed
    -- before: as they arrived now, else as they are stored.
    with touched as materialized (
        select source_id, transaction_key from unnest(arrived)
        union
        select stored.source_id, stored.transaction_key
        from unnest(arrived) as version
        cross join lateral (
            select sale.source_id, sale.transaction_key
            from scout.silver_transactions as sale
            where sale.raw_id = version.raw_id
            union all
            select former.source_id, former.transaction_key
            from scout.silver_transaction_versions as former
            where former.raw_id = version.raw_id
        ) as stored
    ),
    version as (
        select arrived_version as sale from unnest(arrived) as arrived_version
        union all
        select row(stored.*)::scout.silver_transactions
        from touched
        cross join lateral (
            select *
            from scout.silver_transactions as sale
            where sale.source_id = touched.source_id and sale.transaction_key = touched.transaction_key
            union all
            select *
            from scout.silver_transaction_versions as former
            where former.source_id = touched.source_id and former.transaction_key = touched.transaction_key
        ) as stored
        where stored.raw_id <> all (arrived_ids)
    ),
    ranked as (
        select
            sale,
            row_number() over (
                partition by (sale).source_id, (sale).transaction_key
                order by
                    (sale).revision desc nulls last, (sale).version_at desc nulls last, (sale).version desc,
                    (sale).raw_id desc
            ) = 1 as is_latest
        from version
    ),
    gone as (
        select source_id, transaction_key from touched
        except
        select (sale).source_id, (sale).transaction_key from version
    )
    select
        (select array_agg(sale) from ranked where is_latest),
        (select array_agg(sale) from ranked where not is_latest),
        (select array_agg(source_id) from gone),
        (select array_agg(transaction_key) from gone)
    into latest, earlier, gone_sources, gone_keys;

    -- Only what changed is written, for gold follows that.
    delete from scout.silver_transactions as stored using unnest(earlier) as version
    where stored.raw_id = version.raw_id;
    delete from scout.silver_transactions as stored using unnest(latest) as version
    where stored.raw_id = version.raw_id and (stored.*) is distinct from (version.*);
    insert into scout.silver_transactions
    select * from unnest(latest)
    on conflict (source_id, transaction_key) do nothing;
    get diagnostics sales_written = row_count;

    delete from scout.silver_transaction_versions as stored using unnest(latest) as version
    where stored.raw_id = version.raw_id;
    delete from scout.silver_transaction_versions as stored using unnest(earlier) as version
    where stored.raw_id = version.raw_id and (stored.*) is distinct from (version.*);
    insert into scout.silver_transaction_versions
    select * from unnest(earlier)
    on conflict (raw_id) do nothing;

    -- What was sold in a sale of which nothing tells any more. Other sales' lines are replaced by the next steps.
    if gone_keys is not null then
        delete from scout.silver_transaction_items as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
        delete from scout.silver_combo_items as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
        delete from scout.silver_substitutions as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
    end if;

    return next row(
        'scout.silver_transactions',
        coalesce(cardinality(arrived), 0),
        sales_written,
        coalesce(cardinality(arrived), 0) - sales_written,
        fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_transactions is
    'Types the sales of these loads, keeps the latest version of each and the earlier ones beside it. May be run
     again; then it writes what changed. Refused are fields, with their reasons in scout.silver_rejections.';
