-- What describes a store, a device or a sku is what its newest sale said: each of these finds it at once, however
-- many sales there are. Ties are broken byte by byte, so that every database, whatever its language, agrees.
create index silver_transactions_place on scout.silver_transactions (
    store_id, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
) where coalesce(region, province, city, barangay) is not null;
create index silver_transactions_store_type on scout.silver_transactions (
    store_id, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
) where store_type is not null;
create index silver_transactions_device on scout.silver_transactions (
    device_id, (store_id is null), sold_at desc nulls last, transaction_key collate "C" desc,
    source_id collate "C" desc
);
create index silver_transactions_sku on scout.silver_transactions (
    sku, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
) where coalesce(brand_name, product_category) is not null;

drop index scout.silver_transaction_items_sku;
create index silver_transaction_items_sku on scout.silver_transaction_items (
    sku, sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc, line_number desc
) where coalesce(product_name, product_category, brand_name) is not null;

-- The version before the latest, and the sources of a device all of whose sales others told anew.
drop index scout.silver_transaction_versions_sale;
create index silver_transaction_versions_sale on scout.silver_transaction_versions (
    source_id, transaction_key, revision desc nulls last, version_at desc nulls last, version desc
);
create index silver_transaction_versions_device
    on scout.silver_transaction_versions (device_id, source_id collate "C" desc);

