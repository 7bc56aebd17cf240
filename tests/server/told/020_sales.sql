-- What the warehouse knows of stores and products, and the sales and lines that gold speaks of.

create table place as
with newest as (
    select
        store_id,
        region, province, city, barangay,
        row_number() over (partition by store_id order by sold_at desc nulls last, transaction_key desc, source_id desc)
            as place
    from current_sale
    where store_id is not null and coalesce(region, province, city, barangay) is not null
),
newest_type as (
    select
        store_id,
        store_type,
        row_number() over (partition by store_id order by sold_at desc nulls last, transaction_key desc, source_id desc)
            as place
    from current_sale
    where store_id is not null and store_type is not null
)
select
    store_id,
    coalesce(newest.region, 'unknown') as region,
    coalesce(newest.province, 'unknown') as province,
    coalesce(newest.city, 'unknown') as city,
    coalesce(newest.barangay, 'unknown') as barangay,
    coalesce(newest_type.store_type, 'unknown') as store_type
from (select distinct store_id from version where store_id is not null) as store
left join newest using (store_id)
left join newest_type using (store_id)
where coalesce(newest.place, 1) = 1 and coalesce(newest_type.place, 1) = 1;

create table product as
with described as (
    select
        item.sku, item.product_name, item.product_category, item.brand_name,
        row_number() over (
            partition by item.sku
            order by sold_at desc nulls last, transaction_key desc, source_id desc, line_number desc
        ) as place
    from item
    join current_sale using (n)
    where item.sku is not null
        and coalesce(item.product_name, item.product_category, item.brand_name) is not null
),
by_sale as (
    select
        sku, product_category, brand_name,
        row_number() over (partition by sku order by sold_at desc nulls last, transaction_key desc, source_id desc)
            as place
    from current_sale
    where sku is not null and coalesce(brand_name, product_category) is not null
)
select sku, product_name, product_category, brand_name from described where place = 1
union all
select sku, null, product_category, brand_name
from by_sale
where place = 1 and sku not in (select sku from described);

create table sale as
select
    current_sale.* exclude (store_type, region, province, city, barangay),
    coalesce(peso_value, 0) as paid,
    coalesce(place.region, 'unknown') as region,
    coalesce(place.province, 'unknown') as province,
    coalesce(place.city, 'unknown') as city,
    coalesce(place.barangay, 'unknown') as barangay,
    coalesce(place.store_type, 'unknown') as store_type,
    business_day - (isodow(business_day) - 1)::integer as week,
    date_trunc('month', business_day)::date as month,
    isodow(business_day) as weekday,
    case
        when business_hour is null then null
        when business_hour < 6 or business_hour >= 22 then 'night'
        when business_hour < 12 then 'morning'
        when business_hour < 18 then 'afternoon'
        else 'evening'
    end as part_of_day,
    coalesce(store_id, 'unknown') as store,
    coalesce(device_id, 'unknown') as device
from current_sale
left join place using (store_id)
where coalesce(status, 'sale') <> 'void';

create table void as select *, coalesce(device_id, 'unknown') as device from current_sale where status = 'void';

create table line as
with itemized as (
    select n, sum(coalesce(total_price, 0)) as revenue from item group by n
),
split as (
    select
        n,
        coalesce(item.sku, 'unknown') as sku,
        coalesce(item.product_category, 'unknown') as product_category,
        coalesce(item.brand_name, 'unknown') as brand_name,
        qty,
        coalesce(total_price, 0) as revenue
    from item
    union all
    select
        n, coalesce(sku, 'unknown'), coalesce(product_category, 'unknown'), coalesce(brand_name, 'unknown'), units, paid
    from sale
    where n not in (select n from itemized)
    union all
    select n, 'unallocated', 'unallocated', 'unallocated', null, paid - revenue
    from sale
    join itemized using (n)
    where paid <> revenue
)
select
    split.*,
    sale.store,
    sale.store_id,
    sale.business_day,
    product.product_name as named,
    product.product_category as named_category,
    product.brand_name as named_brand
from split
join sale using (n)
left join product on product.sku = split.sku;
