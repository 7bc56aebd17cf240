-- Grain: one row per (source_id, transaction_key) whose latest version says anything of a substitution.
-- scout.silver_transactions says which version is the latest, and its key.
create or replace function scout.refresh_silver_substitutions(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    -- {"stockout": "stockout", …}
    reasons constant jsonb := (
        select jsonb_object_agg(word, meaning) from scout.vocabulary where field = 'reason'
    );
    again constant bigint[] := scout_bronze.rows_due_again(loads);
    substitutions_read bigint;
    substitutions_written bigint;
    fields_refused bigint;
begin
    delete from scout.silver_rejections as rejection
    using scout.bronze_transaction_rows as bronze
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and rejection.raw_id = bronze.raw_id
        and rejection.field in ('occurred', 'from_sku', 'from_brand', 'to_sku', 'to_brand', 'reason');

    -- A sale whose latest version came with these loads: what an earlier one said is no longer true.
    delete from scout.silver_substitutions as substitution
    using scout.bronze_transaction_rows as bronze
    join scout.silver_transactions as sale using (raw_id)
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and substitution.source_id = sale.source_id
        and substitution.transaction_key = sale.transaction_key;

    with said as materialized (
        select
            bronze.raw_id,
            sale.source_id,
            sale.transaction_key,
            told.occurred as said_occurred,
            told.from_sku as said_from_sku,
            told.from_brand as said_from_brand,
            told.to_sku as said_to_sku,
            told.to_brand as said_to_brand,
            told.reason as said_reason
        from scout.bronze_transaction_rows as bronze
        cross join lateral scout.told_substitution(bronze.payload) as told
        left join scout.silver_transactions as sale using (raw_id)
        where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
            and num_nonnulls(
                told.occurred, told.from_sku, told.from_brand, told.to_sku, told.to_brand, told.reason
            ) > 0
    ),
    typed as materialized (
        select
            said.*,
            scout.said_boolean(said_occurred) as occurred,
            scout.said_name(said_from_sku) as from_sku,
            scout.said_name(said_from_brand) as from_brand,
            scout.said_name(said_to_sku) as to_sku,
            scout.said_name(said_to_brand) as to_brand,
            reasons ->> lower(scout.said_text(said_reason)) as reason
        from said
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select raw_id, field.name, field.reason
        from typed
        cross join lateral (
            values
                ('occurred', said_occurred, occurred is null, 'not true or false'),
                ('from_sku', said_from_sku, from_sku is null, 'not text, or too long'),
                ('from_brand', said_from_brand, from_brand is null, 'not text, or too long'),
                ('to_sku', said_to_sku, to_sku is null, 'not text, or too long'),
                ('to_brand', said_to_brand, to_brand is null, 'not text, or too long'),
                ('reason', said_reason, reason is null, 'not a known value')
        ) as field (name, said, is_untyped, reason)
        where field.is_untyped and btrim(field.said #>> '{}', E' \t\r\n') <> ''
        returning raw_id
    ),
    written as (
        insert into scout.silver_substitutions (
            source_id, transaction_key, raw_id, occurred, from_sku, from_brand, to_sku, to_brand, reason
        )
        select
            source_id,
            transaction_key,
            raw_id,
            case
                -- What can't be read is not guessed; where only one of a pair is said, nothing is.
                when btrim(said_occurred #>> '{}', E' \t\r\n') <> '' then occurred
                when from_sku <> to_sku or from_brand <> to_brand then true
                when from_sku = to_sku or from_brand = to_brand then false
            end,
            from_sku,
            from_brand,
            to_sku,
            to_brand,
            reason
        from typed
        where transaction_key is not null
        returning raw_id
    )
    select (select count(*) from typed), (select count(*) from written), (select count(*) from refused)
    into substitutions_read, substitutions_written, fields_refused;

    return next row(
        'scout.silver_substitutions', substitutions_read, substitutions_written,
        substitutions_read - substitutions_written, fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_substitutions is
    'Types what these loads'' sales say of a substitution and replaces what earlier versions said. Run it after
     scout.refresh_silver_transactions for the same loads; it may be run again.';
