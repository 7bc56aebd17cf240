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
            sale.sold_at,
            told.items
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
            basket.sold_at,
            line.number::integer as line_number,
            jsonb_typeof(line.item) = 'object' as is_readable,
            told.sku as said_sku,
            told.product_name as said_product_name,
            told.product_category as said_product_category,
            told.brand_name as said_brand_name,
            told.qty as said_qty,
            told.unit_price as said_unit_price,
            told.total_price as said_total_price
        from basket
        cross join lateral jsonb_array_elements(
            case when jsonb_typeof(basket.items) = 'array' then basket.items else '[]' end
        ) with ordinality as line (item, number)
        cross join lateral scout.told_item(line.item) as told
    ),
    numbered as materialized (
        select
            said.*,
            scout.said_number(said_qty) as qty_number,
            scout.said_amount(said_unit_price) as unit_price_number,
            scout.said_amount(said_total_price) as total_price_number
        from said
    ),
    typed as materialized (
        select
            numbered.*,
            scout.said_name(said_sku) as sku,
            scout.said_text(said_product_name) as product_name,
            scout.said_name(said_product_category) as product_category,
            scout.said_name(said_brand_name) as brand_name,
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
                ('sku', said_sku, sku is null, 'not text, or too long'),
                ('product_name', said_product_name, product_name is null, 'not text'),
                ('product_category', said_product_category, product_category is null, 'not text, or too long'),
                ('brand_name', said_brand_name, brand_name is null, 'not text, or too long'),
                ('qty', said_qty, qty is null, 'not a number'),
                ('unit_price', said_unit_price, unit_price is null, 'not an amount'),
                ('total_price', said_total_price, total_price is null, 'not an amount')
        ) as field (name, said, is_untyped, reason)
        -- Nearly every line is typed whole, and need not be taken apart.
        where num_nonnulls(
                said_sku, said_product_name, said_product_category, said_brand_name, said_qty, said_unit_price,
                said_total_price
            ) > num_nonnulls(sku, product_name, product_category, brand_name, qty, unit_price, total_price)
            and field.is_untyped
            and btrim(field.said #>> '{}', E' \t\r\n') <> ''
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
            unit_price, total_price, sold_at
        )
        select
            source_id, transaction_key, line_number, raw_id, sku, product_name, product_category, brand_name, qty,
            unit_price, total_price, sold_at
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
