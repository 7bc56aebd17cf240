-- Every category that a version of a sale named is there.
with named as (
    select product_category from scout.silver_transactions
    union
    select product_category from scout.silver_transaction_items
    union
    select unnest(array[version.product_category, said.product_category])
    from scout.silver_transaction_versions as version
    join scout.bronze_transaction_rows as bronze using (raw_id)
    left join lateral scout.said_products(bronze.payload) as said on true
)
select product_category
from named
left join scout.dim_category as category using (product_category)
where named.product_category is not null and category.product_category is null
