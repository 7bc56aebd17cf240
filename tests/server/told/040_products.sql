-- What the views of products, customers and the business, and the one of the data itself, must say.

create view scout.gold_product_mix as
select
    product_category,
    count(distinct sku) as skus,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    percent(sum(revenue), sum(sum(revenue)) over ()) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank
from line
group by product_category;

create view scout.gold_product_performance as
select
    sku,
    any_value(named) as product_name,
    any_value(named_category) as product_category,
    any_value(named_brand) as brand_name,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    ratio(sum(revenue), sum(qty), 4) as average_price,
    count(distinct store_id) as stores,
    min(business_day) as first_day,
    max(business_day) as last_day,
    rank() over (order by sum(revenue) desc) as revenue_rank
from line
group by sku;

create view scout.gold_sku_performance as
select
    store as store_id,
    sku,
    any_value(named) as product_name,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    percent(sum(revenue), sum(sum(revenue)) over (partition by store)) as store_revenue_percent,
    rank() over (partition by store order by sum(revenue) desc) as store_rank
from line
group by store, sku;

create view scout.gold_brand_performance as
select
    brand_name,
    count(distinct sku) as skus,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    percent(sum(revenue), sum(sum(revenue)) over ()) as revenue_percent,
    rank() over (order by sum(revenue) desc) as revenue_rank
from line
group by brand_name;

create view scout.gold_category_brand_share as
select
    product_category,
    brand_name,
    count(distinct n) as transactions,
    sum(qty) as quantity,
    sum(revenue) as revenue,
    percent(sum(revenue), sum(sum(revenue)) over (partition by product_category)) as category_percent,
    rank() over (partition by product_category order by sum(revenue) desc) as category_rank
from line
group by product_category, brand_name;

create view scout.gold_basket_patterns as
with basket as (
    select distinct n, sku from line where sku not in ('unknown', 'unallocated')
),
sold as (
    select sku, count(*) as transactions from basket group by sku
),
pair as (
    select a.sku as sku_a, b.sku as sku_b, count(*) as together
    from basket as a
    join basket as b on b.n = a.n and b.sku > a.sku
    group by all
    having together >= 10
)
select
    sku_a,
    sku_b,
    a.transactions as transactions_a,
    b.transactions as transactions_b,
    together as transactions_together,
    ratio(100 * together, (select count(*) from sale), 4) as support_percent,
    percent(together, a.transactions) as confidence_a_to_b_percent,
    percent(together, b.transactions) as confidence_b_to_a_percent,
    ratio((select count(*) from sale)::hugeint * together, a.transactions::hugeint * b.transactions, 4) as lift
from pair
join sold as a on a.sku = sku_a
join sold as b on b.sku = sku_b;

create view scout.gold_combo_pairs as
with basket as (
    select distinct n, combo_item.sku from combo_item join sale using (n) where combo_item.sku is not null
),
sold as (
    select sku, count(*) as transactions from basket group by sku
)
select
    a.sku as sku_a,
    b.sku as sku_b,
    any_value(sold_a.transactions) as transactions_a,
    any_value(sold_b.transactions) as transactions_b,
    count(*) as transactions_together,
    percent(count(*), any_value(sold_a.transactions)) as confidence_a_to_b_percent,
    ratio(
        (select count(distinct n) from basket) * count(*),
        any_value(sold_a.transactions) * any_value(sold_b.transactions),
        4
    ) as lift
from basket as a
join basket as b on b.n = a.n and b.sku > a.sku
join sold as sold_a on sold_a.sku = a.sku
join sold as sold_b on sold_b.sku = b.sku
group by a.sku, b.sku;

create view scout.gold_substitution_flows as
with flow as (
    select
        coalesce(from_sku, 'unknown') as from_sku,
        coalesce(from_brand, asked.brand_name, 'unknown') as from_brand,
        coalesce(to_sku, 'unknown') as to_sku,
        coalesce(to_brand, taken.brand_name, 'unknown') as to_brand,
        coalesce(reason, 'unknown') as reason
    from substitution
    left join product as asked on asked.sku = from_sku
    left join product as taken on taken.sku = to_sku
    where occurred and n in (select n from sale)
)
select
    from_sku, from_brand, to_sku, to_brand, reason,
    count(*) as substitutions,
    percent(count(*), sum(count(*)) over (partition by from_sku, from_brand)) as from_percent
from flow
group by from_sku, from_brand, to_sku, to_brand, reason;

create view scout.gold_request_behavior as
select
    coalesce(request_mode, 'unknown') as request_mode,
    coalesce(request_type, 'unknown') as request_type,
    unnest(totals(paid)),
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    count(*) filter (suggestion_offered) as suggestions_offered,
    count(*) filter (suggestion_accepted) as suggestions_accepted,
    percent(count(*) filter (suggestion_accepted), count(suggestion_accepted)) as acceptance_percent
from sale
group by 1, 2;

create view scout.gold_suggestion_effect as
select
    case when suggestion_accepted is null then 'unknown' when suggestion_accepted then 'accepted' else 'declined' end
        as suggestion,
    unnest(totals(paid)),
    ratio(sum(units), count(units), 2) as average_units,
    ratio(sum(basket_size), count(basket_size), 2) as average_basket_size,
    ratio(sum(duration_seconds), count(duration_seconds), 1) as average_duration_seconds
from sale
group by 1;

create view scout.gold_demographics as
select
    coalesce(gender, 'unknown') as gender,
    coalesce(age_bracket, 'unknown') as age_bracket,
    unnest(totals(paid)),
    count(distinct customer_id) as customers,
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent
from sale
group by 1, 2;

create view scout.gold_customer_segments as
select
    coalesce(customer_type, 'unknown') as customer_type,
    unnest(totals(paid)),
    count(distinct customer_id) as customers,
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent,
    ratio(count(customer_id), count(distinct customer_id), 2) as transactions_per_customer
from sale
group by 1;

create view scout.gold_customer_activity as
select
    customer_id,
    unnest(totals(paid)),
    count(distinct store_id) as stores,
    count(distinct business_day) as days,
    min(business_day) as first_day,
    max(business_day) as last_day,
    (select max(business_day) from sale) - max(business_day) as days_since_last,
    case
        when max(business_day) is null then null
        when (select max(business_day) from sale) - max(business_day) <= 30 then 'active'
        when (select max(business_day) from sale) - max(business_day) <= 90 then 'lapsing'
        else 'lapsed'
    end as activity
from sale
where customer_id is not null
group by customer_id;

create view scout.gold_payment_analysis as
select
    coalesce(payment_method, 'unknown') as payment_method,
    unnest(totals(paid)),
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent
from sale
group by 1;

create view scout.gold_campaign_effect as
select
    case
        when campaign_influenced is null then 'unknown'
        when campaign_influenced then 'influenced'
        else 'not influenced'
    end as campaign,
    unnest(totals(paid)),
    ratio(sum(units), count(units), 2) as average_units,
    ratio(sum(basket_size), count(basket_size), 2) as average_basket_size,
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent
from sale
group by 1;

create view scout.gold_economic_class as
select
    coalesce(economic_class, 'unknown') as economic_class,
    unnest(totals(paid)),
    count(distinct customer_id) as customers,
    percent(count(*), sum(count(*)) over ()) as transactions_percent,
    percent(sum(paid), sum(sum(paid)) over ()) as revenue_percent
from sale
group by 1;

create view scout.gold_tbwa_client_share as
select
    month,
    count(*) as transactions,
    count(*) filter (is_tbwa_client) as tbwa_transactions,
    sum(paid) as revenue,
    coalesce(sum(paid) filter (is_tbwa_client), 0) as tbwa_revenue,
    percent(count(*) filter (is_tbwa_client), count(*)) as tbwa_transactions_percent,
    percent(coalesce(sum(paid) filter (is_tbwa_client), 0), sum(paid)) as tbwa_revenue_percent
from sale
group by month;

create view scout.gold_revenue_by_dim as
with valued as (
    select paid, unnest([
        {'dimension': 'store', 'value': store_id},
        {'dimension': 'store_type', 'value': store_type},
        {'dimension': 'region', 'value': region},
        {'dimension': 'part_of_day', 'value': part_of_day},
        {'dimension': 'weekday', 'value': weekday::varchar},
        {'dimension': 'payment_method', 'value': payment_method},
        {'dimension': 'gender', 'value': gender},
        {'dimension': 'age_bracket', 'value': age_bracket},
        {'dimension': 'customer_type', 'value': customer_type},
        {'dimension': 'economic_class', 'value': economic_class},
        {'dimension': 'request_mode', 'value': request_mode},
        {'dimension': 'request_type', 'value': request_type}
    ], recursive := true)
    from sale
)
select
    dimension,
    coalesce(value, 'unknown') as value,
    unnest(totals(paid)),
    percent(sum(paid), (select sum(paid) from sale)) as revenue_percent
from valued
group by 1, 2;

create view scout.gold_data_quality as
with every as (
    select count(*) as sales from current_sale
),
itemized as (
    select n, sum(coalesce(total_price, 0)) as revenue from item group by n
),
measured (measure, field, rows, of_sales) as (
    select 'sales', '', count(*), true from sale
    union all
    select 'voided_sales', '', count(*), true from void
    union all
    select 'earlier_versions', '', count(*), false from version where age > 1
    union all
    select 'sales_without_time', '', count(*), true from sale where sold_at is null
    union all
    select 'sales_without_store', '', count(*), true from sale where store_id is null
    union all
    select 'sales_without_value', '', count(*), true from sale where peso_value is null
    union all
    select 'sales_without_items', '', count(*), true from sale where n not in (select n from itemized)
    union all
    select 'sales_not_adding_up', '', count(*), true from sale join itemized using (n) where paid <> revenue
    union all
    select 'ids_from_two_devices', '', count(*), false
    from (
        select store_id, transaction_id
        from current_sale
        where store_id is not null and transaction_id is not null
        group by all
        having count(distinct device_id) > 1
    )
    union all
    select 'claimed_other_device', '', count(*), false from version where claimed_device_id is not null
    union all
    select 'unreadable_payloads', '', count(*), false from version where not is_readable
    union all
    select 'rejected_fields', field, count(*), false from refused group by field
)
select measure, field, rows, case when of_sales then percent(rows, sales) end as percent
from measured, every;
