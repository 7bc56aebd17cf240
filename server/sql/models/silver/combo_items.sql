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
            scout.said_field(bronze.payload, 'combo_basket') as lines
        from scout.bronze_transaction_rows as bronze
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
            scout.said_combo_item(line.item) as said
        from basket
        cross join lateral jsonb_array_elements(
            case when jsonb_typeof(basket.lines) = 'array' then basket.lines end
        ) with ordinality as line (item, number)
    ),
    numbered as materialized (
        select said.*, scout.whole(scout.said_number(said -> 'quantity')) as quantity_number
        from said
    ),
    typed as materialized (
        select
            numbered.*,
            scout.said_text(said -> 'sku') as sku,
            case when quantity_number >= 1 then quantity_number end as quantity
        from numbered
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select raw_id, 'combo_basket.' || field.name, min(field.reason)
        from typed
        cross join lateral (
            values
                ('sku', sku is null, 'not text'),
                ('quantity', quantity is null, 'not a whole number from 1')
        ) as field (name, is_untyped, reason)
        where field.is_untyped and said ->> field.name ~ '\S'
        group by raw_id, field.name
        union all
        select raw_id, 'combo_basket', 'not a list'
        from basket
        where jsonb_typeof(lines) <> 'array' and lines #>> '{}' ~ '\S'
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
