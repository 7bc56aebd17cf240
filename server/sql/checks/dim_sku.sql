-- Every sku that a version of a sale named is there, and described as the newest item that says anything of it
-- describes it; where none does, as the newest sale.
with named as (
    select sku from scout.silver_transactions
    union
    select sku from scout.silver_transaction_items
    union
    select sku from scout.silver_combo_items
    union
    select unnest(array[from_sku, to_sku]) from scout.silver_substitutions
    union
    select unnest(array[version.sku, said.sku])
    from scout.silver_transaction_versions as version
    join scout.bronze_transaction_rows as bronze using (raw_id)
    left join lateral scout.said_products(bronze.payload) as said on true
),
item as (
    select distinct on (item.sku) item.sku, item.product_name, item.product_category, item.brand_name
    from scout.silver_transaction_items as item
    join scout.silver_transactions as sale using (source_id, transaction_key)
    where coalesce(item.product_name, item.product_category, item.brand_name) is not null
    order by
        item.sku, sale.sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc,
        item.line_number desc
),
sale as (
    select distinct on (sku) sku, null as product_name, product_category, brand_name
    from scout.silver_transactions
    where coalesce(brand_name, product_category) is not null
    order by sku, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
),
described as (
    select * from item
    union all
    select * from sale where not exists (select from item where item.sku = sale.sku)
)
select sku
from named
left join described using (sku)
left join scout.dim_sku as known using (sku)
where named.sku is not null
    and (
        known.sku is null
        or (described.product_name, described.product_category, described.brand_name)
            is distinct from (known.product_name, known.product_category, known.brand_name)
    )
