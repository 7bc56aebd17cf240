-- Grain: one row per sku that any version of a sale named. Reads scout.silver_transaction_items, and for a sku that
-- no item describes scout.silver_transactions; which skus to look at, the versions that these loads touched say.
-- Name, category and brand come together from one item, the newest that says any of them.
create or replace function scout.refresh_dim_sku(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    skus_read bigint;
    skus_written bigint;
begin
    with touched as materialized (
        select sku
        from scout.touched_products(loads)
        where sku is not null
        union
        select sku
        from scout.dim_sku
        where scout.is_typed_anew(loads) -- then any may be named no more
    ),
    described as materialized (
        select
            touched.sku,
            item.product_name,
            coalesce(item.product_category, sale.product_category) as product_category,
            coalesce(item.brand_name, sale.brand_name) as brand_name
        from touched
        left join lateral (
            select sku, product_name, product_category, brand_name
            from scout.silver_transaction_items as item
            where item.sku = touched.sku and coalesce(product_name, product_category, brand_name) is not null
            order by
                sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc,
                line_number desc
            limit 1
        ) as item on true
        left join lateral (
            select product_category, brand_name
            from scout.silver_transactions as sale
            where item.sku is null
                and sale.sku = touched.sku
                and coalesce(brand_name, product_category) is not null
            order by sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
            limit 1
        ) as sale on true
    ),
    written as (
        insert into scout.dim_sku as known (sku, product_name, product_category, brand_name)
        select sku, product_name, product_category, brand_name from described
        on conflict (sku) do update set (product_name, product_category, brand_name) = (
            excluded.product_name, excluded.product_category, excluded.brand_name
        )
        where (known.product_name, known.product_category, known.brand_name) is distinct from (
            excluded.product_name, excluded.product_category, excluded.brand_name
        )
        returning sku
    )
    select (select count(*) from touched), (select count(*) from written)
    into skus_read, skus_written;

    return next row('scout.dim_sku', skus_read, skus_written, skus_read - skus_written, 0)::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_sku is
    'Describes anew the skus that the sales touched by these loads name. Run it after the steps that type sales,
     items, combinations and substitutions for the same loads; it may be run again.';
