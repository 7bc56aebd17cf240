-- Where in its JSON a till may put each field: the one place that knows the tills' dialects.
create table scout.dialect (
    part text not null check (part in ('sale', 'substitution', 'list', 'item', 'combo_item')),
    field text not null,
    preference smallint not null,
    path text[] not null check (cardinality(path) > 0 and array_position(path, null) is null),
    zone text,
    primary key (part, field, preference),
    unique (part, field, path)
);
comment on table scout.dialect is
    'One row per field of silver and place where a till may put it; the place with the lowest preference that holds
     anything but null counts. The functions scout.said_… are made of it whenever it changes; rows that are typed
     already keep what they have until select scout.type_again().';
comment on column scout.dialect.part is
    'Which object the path begins in: the payload (sale, substitution, list), or an element of its list of items
     (item) or of its combination (combo_item).';
comment on column scout.dialect.field is
    'As scout.silver_rejections names it. `timestamp` is when a sale was made, `captured_at` when its version was
     taken, where no intake saw it. `revision` has no place until an operator gives it one.';
comment on column scout.dialect.zone is
    'Of a time: the zone in which it counts where it names no offset; null is the store''s.';

insert into scout.dialect (part, field, preference, path, zone) values
    ('sale', 'transaction_id', 1, '{transaction_id}', null),
    ('sale', 'transaction_id', 2, '{id}', null),
    ('sale', 'store_id', 1, '{store_id}', null),
    ('sale', 'store_id', 2, '{store,id}', null),
    ('sale', 'timestamp', 1, '{timestamp}', null),
    ('sale', 'timestamp', 2, '{ts}', null),
    ('sale', 'timestamp', 3, '{captured_at}', null),
    ('sale', 'timestamp', 4, '{created_at}', null),
    ('sale', 'timestamp', 5, '{ts_utc}', 'UTC'),
    ('sale', 'captured_at', 1, '{captured_at}', null),
    ('sale', 'peso_value', 1, '{peso_value}', null),
    ('sale', 'peso_value', 2, '{total_amount}', null),
    ('sale', 'peso_value', 3, '{amount}', null),
    ('sale', 'peso_value', 4, '{transaction_amount}', null),
    ('sale', 'peso_value', 5, '{amounts,transaction_amount}', null),
    ('sale', 'units_per_transaction', 1, '{units_per_transaction}', null),
    ('sale', 'basket_size', 1, '{basket_size}', null),
    ('sale', 'sku', 1, '{sku}', null),
    ('sale', 'brand_name', 1, '{brand_name}', null),
    ('sale', 'product_category', 1, '{product_category}', null),
    ('sale', 'region', 1, '{location,region}', null),
    ('sale', 'region', 2, '{geo,region_id}', null),
    ('sale', 'province', 1, '{location,province}', null),
    ('sale', 'city', 1, '{location,city}', null),
    ('sale', 'city', 2, '{geo,city_id}', null),
    ('sale', 'barangay', 1, '{location,barangay}', null),
    ('sale', 'barangay', 2, '{geo,barangay_id}', null),
    ('sale', 'store_type', 1, '{store_type}', null),
    ('sale', 'customer_id', 1, '{customer_id}', null),
    ('sale', 'customer_type', 1, '{customer_type}', null),
    ('sale', 'gender', 1, '{gender}', null),
    ('sale', 'gender', 2, '{request,gender}', null),
    ('sale', 'age_bracket', 1, '{age_bracket}', null),
    ('sale', 'age_bracket', 2, '{request,age_bracket}', null),
    ('sale', 'economic_class', 1, '{economic_class}', null),
    ('sale', 'request_mode', 1, '{request_mode}', null),
    ('sale', 'request_mode', 2, '{request,request_mode}', null),
    ('sale', 'request_type', 1, '{request_type}', null),
    ('sale', 'request_type', 2, '{request,request_type}', null),
    ('sale', 'suggestion_accepted', 1, '{suggestion_accepted}', null),
    ('sale', 'suggestion_accepted', 2, '{suggestion,accepted}', null),
    ('sale', 'suggestion_offered', 1, '{suggestion,offered}', null),
    ('sale', 'campaign_influenced', 1, '{campaign_influenced}', null),
    ('sale', 'is_tbwa_client', 1, '{is_tbwa_client}', null),
    ('sale', 'payment_method', 1, '{payment_method}', null),
    ('sale', 'payment_method', 2, '{request,payment_method}', null),
    ('sale', 'duration_seconds', 1, '{duration_seconds}', null),
    ('sale', 'handshake_score', 1, '{handshake_score}', null),
    ('sale', 'status', 1, '{status}', null),
    ('substitution', 'occurred', 1, '{substitution_event,occurred}', null),
    ('substitution', 'from_sku', 1, '{substitution_event,from_sku}', null),
    ('substitution', 'to_sku', 1, '{substitution_event,to_sku}', null),
    ('substitution', 'reason', 1, '{substitution_event,reason}', null),
    ('substitution', 'from_brand', 1, '{substitution,asked_brand_id}', null),
    ('substitution', 'to_brand', 1, '{substitution,final_brand_id}', null),
    ('list', 'items', 1, '{items}', null),
    ('list', 'combo_basket', 1, '{combo_basket}', null),
    ('item', 'sku', 1, '{sku}', null),
    ('item', 'product_name', 1, '{product_name}', null),
    ('item', 'product_category', 1, '{product_category}', null),
    ('item', 'product_category', 2, '{category_name}', null),
    ('item', 'brand_name', 1, '{brand_name}', null),
    ('item', 'qty', 1, '{qty}', null),
    ('item', 'unit_price', 1, '{unit_price}', null),
    ('item', 'total_price', 1, '{total_price}', null),
    ('combo_item', 'sku', 1, '{sku}', null),
    ('combo_item', 'quantity', 1, '{quantity}', null);

insert into scout.vocabulary (field, word, meaning)
select 'reason', reason, reason
from unnest(array['stockout', 'suggestion', 'unknown']) as reason;

-- A row of bronze by the number that silver knows it by; see scout.bronze_edge_rows.
create index bronze_edge_raw_row on scout.bronze_edge_raw (coalesce(raw_id, -id));
create index bronze_transactions_raw_row on scout.bronze_transactions_raw (coalesce(raw_id, -ingest_id));

-- Silver's own tables say now which versions a sale has.
drop index scout.silver_edge_events_sale;
