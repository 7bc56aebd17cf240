-- Grain: one row per store that any version of a sale named. Reads scout.silver_transactions; which stores to look
-- at, the versions that these loads touched say.
-- Its place and its type are those of its newest sale (voided ones count) that names any, derived anew whenever a
-- sale that named the store was touched: never what arrived last.
create or replace function scout.refresh_dim_store(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    stores_read bigint;
    stores_written bigint;
begin
    with touched as materialized (
        select store_id
        from scout.touched_versions(loads)
        where store_id is not null
        union
        select store_id
        from scout.dim_store
        where scout.is_typed_anew(loads) -- then any may be named no more
    ),
    described as materialized (
        select touched.store_id, kind.store_type, place.region, place.province, place.city, place.barangay
        from touched
        left join lateral (
            select region, province, city, barangay
            from scout.silver_transactions as sale
            where sale.store_id = touched.store_id and coalesce(region, province, city, barangay) is not null
            order by sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
            limit 1
        ) as place on true
        left join lateral (
            select store_type
            from scout.silver_transactions as sale
            where sale.store_id = touched.store_id and store_type is not null
            order by sold_at desc nulls last, transaction_key collate "C" desc, source_id collate "C" desc
            limit 1
        ) as kind on true
    ),
    written as (
        -- The time zone is the operators'.
        insert into scout.dim_store as store (store_id, store_type, region, province, city, barangay)
        select store_id, store_type, region, province, city, barangay from described
        on conflict (store_id) do update set (store_type, region, province, city, barangay) = (
            excluded.store_type, excluded.region, excluded.province, excluded.city, excluded.barangay
        )
        where (store.store_type, store.region, store.province, store.city, store.barangay) is distinct from (
            excluded.store_type, excluded.region, excluded.province, excluded.city, excluded.barangay
        )
        returning store_id
    )
    select (select count(*) from touched), (select count(*) from written)
    into stores_read, stores_written;

    return next row(
        'scout.dim_store', stores_read, stores_written, stores_read - stores_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_store is
    'Describes anew the stores of the sales that these loads touched. Run it after
     scout.refresh_silver_transactions for the same loads; it may be run again.';
