-- The tills' dialects as a table, and rows that are typed again.

-- An ETL that runs now ends first: it and this would wait for each other's tables.
select pg_advisory_xact_lock(hashtextextended('scout_bronze.etl_to_production', 0));

-- What can be said: a column for each field of silver, and for each time the zone of the place where it was found.
create type scout.told_sale as (
    transaction_id jsonb,
    store_id jsonb,
    "timestamp" jsonb,
    timestamp_zone text,
    captured_at jsonb,
    captured_at_zone text,
    peso_value jsonb,
    units_per_transaction jsonb,
    basket_size jsonb,
    sku jsonb,
    brand_name jsonb,
    product_category jsonb,
    region jsonb,
    province jsonb,
    city jsonb,
    barangay jsonb,
    store_type jsonb,
    customer_id jsonb,
    customer_type jsonb,
    gender jsonb,
    age_bracket jsonb,
    economic_class jsonb,
    request_mode jsonb,
    request_type jsonb,
    suggestion_offered jsonb,
    suggestion_accepted jsonb,
    campaign_influenced jsonb,
    is_tbwa_client jsonb,
    payment_method jsonb,
    duration_seconds jsonb,
    handshake_score jsonb,
    status jsonb,
    revision jsonb
);
comment on type scout.told_sale is 'What a payload says of the sale itself.';
create type scout.told_event as (transaction_id jsonb, store_id jsonb, "timestamp" jsonb, timestamp_zone text);
comment on type scout.told_event is 'Which sale a payload tells of, where and when.';
create type scout.told_substitution as (
    occurred jsonb, from_sku jsonb, from_brand jsonb, to_sku jsonb, to_brand jsonb, reason jsonb
);
comment on type scout.told_substitution is 'What a payload says of a substitution.';
create type scout.told_list as (items jsonb, combo_basket jsonb);
comment on type scout.told_list is 'The lists in a payload.';
create type scout.told_item as (
    sku jsonb, product_name jsonb, product_category jsonb, brand_name jsonb, qty jsonb, unit_price jsonb,
    total_price jsonb
);
comment on type scout.told_item is 'What an element of the list of items says.';
create type scout.told_combo_item as (sku jsonb, quantity jsonb);
comment on type scout.told_combo_item is 'What an element of the list combo_basket says.';

create table scout.dialect (
    part text not null check (part in ('sale', 'substitution', 'list', 'item', 'combo_item')),
    field text not null,
    preference smallint not null,
    path text[] not null check (
        cardinality(path) > 0
        and array_position(path, null) is null
        and octet_length(path[1]) between 1 and 63 -- it becomes a column's name
    ),
    zone text,
    primary key (part, field, preference),
    unique (part, field, path)
);
comment on table scout.dialect is
    'One row per field of silver and place where a till may put it; the place with the lowest preference that holds
     anything but null counts. The functions scout.told_… are made of it whenever it changes; rows that are typed
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

-- What is typed again without anything new: a range of production rows, all of them or those of a store.
alter table scout_bronze.loads
    add column first_raw_id bigint,
    add column last_raw_id bigint,
    add column store_id text;
comment on table scout_bronze.loads is
    'One row per piece of work of the ETL, which removes it when it is done: a commit into the landing table, a boot
     that was measured, or a range of rows to be typed again. Work is found by what is here, never by a clock or a
     high-water mark: a slow transaction commits late.';
comment on column scout_bronze.loads.first_raw_id is
    'Set where production rows from here to last_raw_id are to be typed again; adopted ones have numbers below zero.';
comment on column scout_bronze.loads.store_id is 'Set where only that store''s rows of the range are meant.';

create table scout_bronze.rows_again (
    load_id bigint not null,
    raw_id bigint not null,
    primary key (load_id, raw_id)
);
comment on table scout_bronze.rows_again is
    'The production rows that a load makes due again, while the ETL works at it: its steps must agree on them, and
     typing a row may change which sale it tells of. Empty between runs.';

create index silver_transaction_versions_store
    on scout.silver_transaction_versions ((coalesce(store_id, 'unknown')), raw_id);

create table scout.typing (version integer not null);
insert into scout.typing (version) values (0);
comment on table scout.typing is
    'One row: with which version of the models silver was typed, or is being typed again (models/silver/typing.sql).';
