-- Grain: one row per (source_id, transaction_key, line_number) of the sale's latest version. Reads the items in
-- scout.bronze_transactions_raw only; scout.silver_transactions says which version is the latest, and its key.
create or replace function scout.refresh_silver_transaction_items(loads bigint[])
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
        and rejection.field like 'items%';

    -- A sale whose latest version came with these loads: the lines of an earlier one are no longer true.
    delete from scout.silver_transaction_items as item
    using scout.bronze_transaction_rows as bronze
    join scout.silver_transactions as sale using (raw_id)
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and item.source_id = sale.source_id
        and item.transaction_key = sale.transaction_key;

    with basket as materialized (
        select
            bronze.raw_id,
            sale.source_id,
            sale.transaction_key,
            scout.said_field(bronze.payload, 'items') as items
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
            scout.said_item(line.item) as said
        from basket
        cross join lateral jsonb_array_elements(
            case when jsonb_typeof(basket.items) = 'array' then basket.items else '[]' end
        ) with ordinality as line (item, number)
    ),
    numbered as materialized (
        select
            said.*,
            scout.said_number(said -> 'qty') as qty_number,
            scout.said_amount(said -> 'unit_price') as unit_price_number,
            scout.said_amount(said -> 'total_price') as total_price_number
        from said
    ),
    typed as materialized (
        select
            numbered.*,
            scout.said_text(said -> 'sku') as sku,
            scout.said_text(said -> 'product_name') as product_name,
            scout.said_text(said -> 'product_category') as product_category,
            scout.said_text(said -> 'brand_name') as brand_name,
            scout.within(qty_number, 1e10, 4) as qty,
            scout.within(unit_price_number, 1e10, 4) as unit_price,
            scout.within(total_price_number, 1e12, 2) as total_price
        from numbered
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select raw_id, 'items.' || field.name, min(field.reason)
        from typed
        cross join lateral (
            values
                ('sku', sku is null, 'not text'),
                ('product_name', product_name is null, 'not text'),
                ('product_category', product_category is null, 'not text'),
                ('brand_name', brand_name is null, 'not text'),
                ('qty', qty is null, 'not a number'),
                ('unit_price', unit_price is null, 'not an amount'),
                ('total_price', total_price is null, 'not an amount')
        ) as field (name, is_untyped, reason)
        where field.is_untyped and btrim(said ->> field.name, E' \t\r\n') <> ''
        group by raw_id, field.name
        union all
        select raw_id, 'items', 'not a list' from basket where jsonb_typeof(items) <> 'array'
        union all
        select distinct raw_id, 'items', 'holds something that is no item' from said where not is_readable
        returning raw_id
    ),
    written as (
        insert into scout.silver_transaction_items (
            source_id, transaction_key, line_number, raw_id, sku, product_name, product_category, brand_name, qty,
            unit_price, total_price
        )
        select
            source_id, transaction_key, line_number, raw_id, sku, product_name, product_category, brand_name, qty,
            unit_price, total_price
        from typed
        where transaction_key is not null
        returning raw_id
    )
    select (select count(*) from said), (select count(*) from written), (select count(*) from refused)
    into lines_read, lines_written, fields_refused;

    return next row(
        'scout.silver_transaction_items', lines_read, lines_written, lines_read - lines_written, fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_transaction_items is
    'Types the items of these loads'' sales and replaces those of earlier versions. Run it after
     scout.refresh_silver_transactions for the same loads; it may be run again. One row of scout.silver_rejections
     stands for all lines of a sale whose field of that name could not be typed.';
