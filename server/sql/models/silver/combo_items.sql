-- Grain: one row per (source_id, transaction_key, line_number) of the combination that the sale's latest version was
-- sold as. scout.silver_transactions says which version is the latest, and its key.
create or replace function scout.refresh_silver_combo_items(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    again constant bigint[] := scout_bronze.rows_due_again(loads);
    lines_read bigint;
    lines_written bigint;
    fields_refused bigint;
begin
    delete from scout.silver_rejections as rejection
    using scout.bronze_transaction_rows as bronze
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and rejection.raw_id = bronze.raw_id
        and rejection.field like 'combo\_basket%';

    -- A sale whose latest version came with these loads: the lines of an earlier one are no longer true.
    delete from scout.silver_combo_items as line
    using scout.bronze_transaction_rows as bronze
    join scout.silver_transactions as sale using (raw_id)
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and line.source_id = sale.source_id
        and line.transaction_key = sale.transaction_key;

    with basket as materialized (
        select
            bronze.raw_id,
            sale.source_id,
            sale.transaction_key,
            told.combo_basket
        from scout.bronze_transaction_rows as bronze
        cross join lateral scout.told_list(bronze.payload) as told
        left join scout.silver_transactions as sale using (raw_id)
        where bronze.load_id = any (loads) or bronze.raw_id = any (again)
    ),
    said as materialized (
        select
            basket.raw_id,
            basket.source_id,
            basket.transaction_key,
            line.number::integer as line_number,
            jsonb_typeof(line.item) = 'object' as is_readable,
            told.sku as said_sku,
            told.quantity as said_quantity
        from basket
        cross join lateral jsonb_array_elements(
            case when jsonb_typeof(basket.combo_basket) = 'array' then basket.combo_basket end
        ) with ordinality as line (item, number)
        cross join lateral scout.told_combo_item(line.item) as told
    ),
    typed as materialized (
        select
            said.*,
            scout.said_name(said_sku) as sku,
            nullif(scout.said_count(said_quantity), 0) as quantity
        from said
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select raw_id, 'combo_basket.' || field.name, min(field.reason)
        from typed
        cross join lateral (
            values
                ('sku', said_sku, sku is null, 'not text, or too long'),
                ('quantity', said_quantity, quantity is null, 'not a whole number from 1')
        ) as field (name, said, is_untyped, reason)
        where field.is_untyped and btrim(field.said #>> '{}', E' \t\r\n') <> ''
        group by raw_id, field.name
        union all
        select raw_id, 'combo_basket', 'not a list'
        from basket
        where jsonb_typeof(combo_basket) <> 'array' and btrim(combo_basket #>> '{}', E' \t\r\n') <> ''
        union all
        select distinct raw_id, 'combo_basket', 'holds something that is no item' from said where not is_readable
        returning raw_id
    ),
    written as (
        insert into scout.silver_combo_items (source_id, transaction_key, line_number, raw_id, sku, quantity)
        select source_id, transaction_key, line_number, raw_id, sku, quantity
        from typed
        where transaction_key is not null
        returning raw_id
    )
    select (select count(*) from said), (select count(*) from written), (select count(*) from refused)
    into lines_read, lines_written, fields_refused;

    return next row(
        'scout.silver_combo_items', lines_read, lines_written, lines_read - lines_written, fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_combo_items is
    'Types the combinations of these loads'' sales and replaces those of earlier versions. Run it after
     scout.refresh_silver_transactions for the same loads; it may be run again. One row of scout.silver_rejections
     stands for all lines of a sale whose field of that name could not be typed.';
