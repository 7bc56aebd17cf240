-- Grain: one row per sale that counts: all but the voided ones.
-- What every view of gold means by a sale, its revenue, its place and its time is written here, and only here.
-- Gold views stand on this one: add columns at its end, and remove none without a migration.
create or replace view scout.silver_sales as
select
    sale.source_id,
    sale.transaction_key,
    sale.transaction_id,
    sale.device_id,
    sale.store_id,
    sale.sold_at,
    sale.business_day,
    sale.business_hour,
    date_trunc('week', sale.business_day::timestamp)::date as week,
    date_trunc('month', sale.business_day::timestamp)::date as month,
    extract(isodow from sale.business_day)::smallint as weekday,
    case
        when sale.business_hour between 6 and 11 then 'morning'
        when sale.business_hour between 12 and 17 then 'afternoon'
        when sale.business_hour between 18 and 21 then 'evening'
        when sale.business_hour is not null then 'night'
    end as part_of_day,
    coalesce(store.region, 'unknown') as region,
    coalesce(store.province, 'unknown') as province,
    coalesce(store.city, 'unknown') as city,
    coalesce(store.barangay, 'unknown') as barangay,
    coalesce(store.store_type, 'unknown') as store_type,
    sale.peso_value,
    coalesce(sale.peso_value, 0) as revenue,
    sale.units_per_transaction,
    sale.basket_size,
    sale.sku,
    sale.brand_name,
    sale.product_category,
    sale.customer_id,
    sale.customer_type,
    sale.gender,
    sale.age_bracket,
    sale.economic_class,
    sale.request_mode,
    sale.request_type,
    sale.suggestion_offered,
    sale.suggestion_accepted,
    sale.campaign_influenced,
    sale.is_tbwa_client,
    sale.payment_method,
    sale.duration_seconds,
    sale.handshake_score
from scout.silver_transactions as sale
left join scout.dim_store as store using (store_id)
where sale.status is distinct from 'void';
comment on view scout.silver_sales is
    'The sales that count, each with the place of its store: one row per sale that was not voided. Pesos.';
comment on column scout.silver_sales.business_day is 'Calendar day of sold_at where the store is.';
comment on column scout.silver_sales.business_hour is 'Hour (0 to 23) of sold_at where the store is.';
comment on column scout.silver_sales.week is 'The Monday of the week of business_day.';
comment on column scout.silver_sales.month is 'The first day of the month of business_day.';
comment on column scout.silver_sales.weekday is 'Of business_day: 1 is Monday, 7 is Sunday.';
comment on column scout.silver_sales.part_of_day is
    'By business_hour: morning from 6, afternoon from 12, evening from 18, night from 22; null where no hour is known.';
comment on column scout.silver_sales.region is
    'Of the store, by scout.dim_store, as are province, city, barangay and store_type; `unknown` where nobody named it.';
comment on column scout.silver_sales.peso_value is 'What was paid, in pesos; null where the till didn''t say.';
comment on column scout.silver_sales.revenue is 'What was paid, in pesos; 0 where the till didn''t say.';
