-- The tills' own texts, read by DuckDB: what each record says, which of a sale's versions counts, and its lines.
-- Written from the meaning of the fields, never from the server's SQL, so that the two can disagree.
-- Python has made `record` (n, source_id, device_id, epoch, seq, id, captured_at, claimed_device_id, payload) and
-- `zone` (store_id, time_zone).

-- A quotient that Python rounds, exactly and half away from zero; null where there is nothing to divide by.
create macro ratio(part, whole, places) as {'part': part, 'whole': whole, 'places': places};
create macro percent(part, whole) as ratio(100 * part, whole, 2);
create macro totals(paid) as
    {'transactions': count(*), 'revenue': sum(paid), 'average_sale': ratio(sum(paid), count(*), 2)};

create macro text_of(written) as nullif(trim(written), '');
create macro number_of(amount) as try_cast(replace(replace(trim(amount), '₱', ''), ',', '') as decimal(38, 6));
create macro whole_of(units) as case when number_of(units) = trunc(number_of(units)) then number_of(units)::integer end;
create macro truth_of(answer) as case lower(trim(answer)) when 'true' then true when 'false' then false end;
create macro word_of(choice, words) as words[list_position(list_transform(words, lambda word: lower(word)), choice)];
-- Seconds or milliseconds since 1970, a time with its offset, or one by the clock of a zone.
create macro instant_of(time, zone) as case
    when regexp_full_match(time, '[0-9]{9,11}') then make_timestamptz(time::bigint * 1000000)
    when regexp_full_match(time, '[0-9]{12,13}') then make_timestamptz(time::bigint * 1000)
    when regexp_matches(time, '([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$') then try_cast(time as timestamptz)
    else timezone(zone, try_cast(time as timestamp))
end;

create table told as
select
    record.* exclude (payload),
    object is not null as is_readable,
    from_json(object, '{
        "transaction_id": "VARCHAR", "id": "VARCHAR", "store_id": "VARCHAR", "store": {"id": "VARCHAR"},
        "timestamp": "VARCHAR", "ts": "VARCHAR", "captured_at": "VARCHAR", "created_at": "VARCHAR", "ts_utc": "VARCHAR",
        "peso_value": "VARCHAR", "total_amount": "VARCHAR", "amount": "VARCHAR", "transaction_amount": "VARCHAR",
        "amounts": {"transaction_amount": "VARCHAR"},
        "units_per_transaction": "VARCHAR", "basket_size": "VARCHAR", "duration_seconds": "VARCHAR",
        "sku": "VARCHAR", "brand_name": "VARCHAR", "product_category": "VARCHAR",
        "location": {"region": "VARCHAR", "province": "VARCHAR", "city": "VARCHAR", "barangay": "VARCHAR"},
        "geo": {"region_id": "VARCHAR", "city_id": "VARCHAR", "barangay_id": "VARCHAR"},
        "store_type": "VARCHAR", "customer_id": "VARCHAR", "customer_type": "VARCHAR", "gender": "VARCHAR",
        "age_bracket": "VARCHAR", "economic_class": "VARCHAR", "payment_method": "VARCHAR", "status": "VARCHAR",
        "request_mode": "VARCHAR", "request_type": "VARCHAR",
        "request": {
            "request_mode": "VARCHAR", "request_type": "VARCHAR", "payment_method": "VARCHAR", "gender": "VARCHAR",
            "age_bracket": "VARCHAR"
        },
        "suggestion_accepted": "VARCHAR", "suggestion": {"offered": "VARCHAR", "accepted": "VARCHAR"},
        "campaign_influenced": "VARCHAR", "is_tbwa_client": "VARCHAR",
        "substitution_event": {
            "occurred": "VARCHAR", "from_sku": "VARCHAR", "to_sku": "VARCHAR", "reason": "VARCHAR"
        },
        "substitution": {"asked_brand_id": "VARCHAR", "final_brand_id": "VARCHAR"},
        "combo_basket": [{"sku": "VARCHAR"}],
        "items": [{
            "sku": "VARCHAR", "product_name": "VARCHAR", "product_category": "VARCHAR", "category_name": "VARCHAR",
            "brand_name": "VARCHAR", "qty": "VARCHAR", "total_price": "VARCHAR"
        }]
    }') as said
from (
    select
        *,
        -- A text that holds \u0000 is kept, and can't be queried.
        case when json_type(try_cast(payload as json)) = 'OBJECT' and not contains(payload, '\u0000')
            then payload::json
        end as object
    from record
) as record;

create table version as
with typed as (
    select
        told.*,
        text_of(coalesce(said.transaction_id, said.id)) as transaction_id,
        text_of(coalesce(said.store_id, said.store.id)) as store_id,
        coalesce(
            said.peso_value, said.total_amount, said.amount, said.transaction_amount, said.amounts.transaction_amount
        ) as said_value,
        number_of(said_value)::decimal(14, 2) as peso_value,
        whole_of(said.units_per_transaction) as units,
        whole_of(said.basket_size) as basket_size,
        whole_of(said.duration_seconds) as duration_seconds,
        text_of(said.sku) as sku,
        text_of(said.brand_name) as brand_name,
        text_of(said.product_category) as product_category,
        text_of(coalesce(said.location.region, said.geo.region_id)) as region,
        text_of(said.location.province) as province,
        text_of(coalesce(said.location.city, said.geo.city_id)) as city,
        text_of(coalesce(said.location.barangay, said.geo.barangay_id)) as barangay,
        text_of(said.customer_id) as customer_id,
        lower(trim(said.store_type)) as said_store_type,
        lower(trim(said.customer_type)) as said_customer_type,
        lower(trim(coalesce(said.gender, said.request.gender))) as said_gender,
        lower(trim(coalesce(said.age_bracket, said.request.age_bracket))) as said_age_bracket,
        lower(trim(said.economic_class)) as said_economic_class,
        lower(trim(coalesce(said.request_mode, said.request.request_mode))) as said_request_mode,
        lower(trim(coalesce(said.request_type, said.request.request_type))) as said_request_type,
        lower(trim(coalesce(said.payment_method, said.request.payment_method))) as said_payment_method,
        lower(trim(said.status)) as said_status,
        coalesce(said.suggestion_accepted, said.suggestion.accepted) as said_accepted,
        word_of(
            said_store_type, ['urban_high', 'urban_medium', 'residential', 'rural', 'transport', 'other']
        ) as store_type,
        word_of(said_customer_type, ['regular', 'occasional', 'new', 'unknown']) as customer_type,
        word_of(said_gender, ['male', 'female', 'unknown']) as gender,
        word_of(said_age_bracket, ['18-24', '25-34', '35-44', '45-54', '55+', 'unknown']) as age_bracket,
        word_of(said_economic_class, ['A', 'B', 'C', 'D', 'E', 'unknown']) as economic_class,
        word_of(said_request_mode, ['verbal', 'pointing', 'indirect']) as request_mode,
        word_of(said_request_type, ['branded', 'unbranded', 'point', 'indirect']) as request_type,
        case said_payment_method
            when 'card' then 'credit'
            else word_of(said_payment_method, ['cash', 'gcash', 'maya', 'credit', 'other'])
        end as payment_method,
        word_of(said_status, ['sale', 'void']) as status,
        truth_of(said_accepted) as suggestion_accepted,
        truth_of(said.suggestion.offered) as suggestion_offered,
        truth_of(said.campaign_influenced) as campaign_influenced,
        truth_of(said.is_tbwa_client) as is_tbwa_client,
        text_of(coalesce(said."timestamp", said.ts, said.captured_at, said.created_at)) as said_time,
        text_of(said.ts_utc) as said_time_utc
    from told
),
timed as (
    select
        typed.*,
        coalesce(zone.time_zone, 'Asia/Manila') as time_zone,
        coalesce(
            instant_of(said_time, coalesce(zone.time_zone, 'Asia/Manila')), instant_of(said_time_utc, 'UTC')
        ) as said_at
    from typed
    left join zone using (store_id)
),
dated as (
    select
        *,
        coalesce(transaction_id, epoch || ':' || seq || ':' || id, 'line ' || n) as transaction_key,
        coalesce(said_at, captured_at) as sold_at,
        coalesce(captured_at, said_at) as version_at,
        timezone(time_zone, coalesce(said_at, captured_at)) as sold_there
    from timed
)
select
    *,
    sold_there::date as business_day,
    hour(sold_there) as business_hour,
    row_number() over (
        partition by source_id, transaction_key order by version_at desc nulls last, id desc nulls last, n desc
    ) as age
from dated;

create view current_sale as select * from version where age = 1;

create table item as
select
    n,
    line_number,
    text_of(item.sku) as sku,
    text_of(item.product_name) as product_name,
    text_of(coalesce(item.product_category, item.category_name)) as product_category,
    text_of(item.brand_name) as brand_name,
    item.qty as said_qty,
    item.total_price as said_total_price,
    number_of(said_qty)::decimal(14, 4) as qty,
    number_of(said_total_price)::decimal(14, 2) as total_price
from (
    select n, unnest(said.items) as item, generate_subscripts(said.items, 1) as line_number from told
);

create table combo_item as
select n, text_of(item.sku) as sku
from (select n, unnest(said.combo_basket) as item from told);

-- What was asked for, and what was taken. A till that names two different ones says that something else was taken.
create table substitution as
select
    n,
    text_of(said.substitution_event.from_sku) as from_sku,
    text_of(said.substitution.asked_brand_id) as from_brand,
    text_of(said.substitution_event.to_sku) as to_sku,
    text_of(said.substitution.final_brand_id) as to_brand,
    word_of(lower(trim(said.substitution_event.reason)), ['stockout', 'suggestion', 'unknown']) as reason,
    coalesce(truth_of(said.substitution_event.occurred), from_sku <> to_sku or from_brand <> to_brand) as occurred
from current_sale
where said.substitution_event is not null or said.substitution is not null;

-- Fields that nobody could type, or that a sale must have and hasn't.
create table refused as
select distinct n, field
from (
    select n, unnest([
        {'field': 'transaction_id', 'is_refused': transaction_id is null},
        {'field': 'store_id', 'is_refused': store_id is null},
        {'field': 'timestamp', 'is_refused': said_at is null},
        {'field': 'peso_value', 'is_refused': peso_value is null},
        {'field': 'units_per_transaction', 'is_refused': units is null and said.units_per_transaction <> ''},
        {'field': 'basket_size', 'is_refused': basket_size is null and said.basket_size <> ''},
        {'field': 'duration_seconds', 'is_refused': duration_seconds is null and said.duration_seconds <> ''},
        {'field': 'store_type', 'is_refused': store_type is null and said_store_type <> ''},
        {'field': 'customer_type', 'is_refused': customer_type is null and said_customer_type <> ''},
        {'field': 'gender', 'is_refused': gender is null and said_gender <> ''},
        {'field': 'age_bracket', 'is_refused': age_bracket is null and said_age_bracket <> ''},
        {'field': 'economic_class', 'is_refused': economic_class is null and said_economic_class <> ''},
        {'field': 'request_mode', 'is_refused': request_mode is null and said_request_mode <> ''},
        {'field': 'request_type', 'is_refused': request_type is null and said_request_type <> ''},
        {'field': 'payment_method', 'is_refused': payment_method is null and said_payment_method <> ''},
        {'field': 'status', 'is_refused': status is null and said_status <> ''},
        {'field': 'suggestion_accepted', 'is_refused': suggestion_accepted is null and said_accepted <> ''},
        {'field': 'campaign_influenced', 'is_refused': campaign_influenced is null and said.campaign_influenced <> ''},
        {'field': 'is_tbwa_client', 'is_refused': is_tbwa_client is null and said.is_tbwa_client <> ''}
    ], recursive := true)
    from version
    where is_readable
    union all
    select n, 'payload', not is_readable from version
    union all
    select n, 'items.qty', qty is null and said_qty <> '' from item
    union all
    select n, 'items.total_price', total_price is null and said_total_price <> '' from item
)
where is_refused;
