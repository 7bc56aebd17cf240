-- Every brand that a version of a sale named is there.
with named as (
    select brand_name from scout.silver_transactions
    union
    select brand_name from scout.silver_transaction_items
    union
    select unnest(array[from_brand, to_brand]) from scout.silver_substitutions
    union
    select unnest(array[version.brand_name, said.brand_name])
    from scout.silver_transaction_versions as version
    join scout.bronze_transaction_rows as bronze using (raw_id)
    left join lateral scout.said_products(bronze.payload) as said on true
)
select brand_name
from named
left join scout.dim_brand as brand using (brand_name)
where named.brand_name is not null and brand.brand_name is null
