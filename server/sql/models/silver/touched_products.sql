-- Grain: one row per sku, category and brand that the versions touched by these loads name together, in the sale
-- itself, its items, its combination or its substitution. Run it after the steps that type these.
create or replace function scout.touched_products(loads bigint[])
returns table (sku text, product_category text, brand_name text)
language plpgsql stable
-- As in scout.touched_versions.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
    return query
    with touched as materialized (
        select * from scout.touched_versions(loads)
    )
    select sku, product_category, brand_name
    from touched
    union
    select item.sku, item.product_category, item.brand_name
    from touched
    join scout.silver_transaction_items as item using (source_id, transaction_key)
    where is_latest
    union
    select combo.sku, null, null
    from touched
    join scout.silver_combo_items as combo using (source_id, transaction_key)
    where is_latest
    union
    select named.sku, null, named.brand
    from touched
    join scout.silver_substitutions as substitution using (source_id, transaction_key)
    cross join lateral (values (from_sku, from_brand), (to_sku, to_brand)) as named (sku, brand)
    where is_latest
    union
    select said.*
    from touched
    join scout.bronze_transaction_rows as bronze using (raw_id)
    cross join lateral scout.said_products(bronze.payload) as said
    where not is_latest;
end
$$;
comment on function scout.touched_products is
    'The products, categories and brands named by the versions of sales that these loads touched.';
