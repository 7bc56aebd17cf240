-- The warehouse that analysts use: versions of a sale, what it was sold with, and the dimensions.

alter table scout.silver_transactions
    add column revision numeric,
    add column voided_at timestamptz,
    add column suggestion_offered boolean;
comment on table scout.silver_transactions is
    'One row per sale, in its latest version; scout.silver_transaction_versions has the earlier ones. A voided sale
     stays, with status void and voided_at.';
comment on column scout.silver_transactions.revision is
    'The till''s own count of versions, where scout.dialect says in which field it is; it counts before version_at.';
comment on column scout.silver_transactions.voided_at is
    'When the version that voids the sale was taken; null unless status is void.';
comment on column scout.silver_transactions.suggestion_offered is 'Whether the store suggested something.';
-- A sale without store or device is found under `unknown`, as gold calls it.
create index silver_transactions_store_day
    on scout.silver_transactions ((coalesce(store_id, 'unknown')), business_day);
create index silver_transactions_device_day
    on scout.silver_transactions ((coalesce(device_id, 'unknown')), business_day);

create table scout.silver_transaction_versions (like scout.silver_transactions);
alter table scout.silver_transaction_versions add primary key (raw_id);
create index silver_transaction_versions_sale on scout.silver_transaction_versions (source_id, transaction_key);
comment on table scout.silver_transaction_versions is
    'One row per earlier version of a sale: corrected, voided or told twice in different words since. Same columns as
     scout.silver_transactions.';

alter table scout.silver_transaction_items add column sold_at timestamptz;
comment on column scout.silver_transaction_items.sold_at is 'As of its sale.';
create index silver_transaction_items_sku
    on scout.silver_transaction_items (sku, sold_at desc nulls last) where sku is not null;

create table scout.silver_combo_items (
    source_id text not null,
    transaction_key text not null,
    line_number integer not null,
    raw_id bigint not null,
    sku text,
    quantity numeric(14, 4),
    primary key (source_id, transaction_key, line_number)
);
comment on table scout.silver_combo_items is
    'One row per line of a sale''s combo_basket (what was sold as a combination), of the sale''s latest version.';
comment on column scout.silver_combo_items.line_number is 'Place in the till''s list, from 1.';

create table scout.silver_substitutions (
    source_id text not null,
    transaction_key text not null,
    raw_id bigint not null,
    occurred boolean,
    from_sku text,
    from_brand text,
    to_sku text,
    to_brand text,
    reason text,
    primary key (source_id, transaction_key)
);
comment on table scout.silver_substitutions is
    'One row per sale whose latest version says anything of a substitution: what was asked for, and what was taken.';
comment on column scout.silver_substitutions.occurred is
    'Whether something else was taken than was asked for; a till that names two different ones without saying so says
     yes.';

create table scout.dim_store (
    store_id text primary key,
    time_zone text not null default 'Asia/Manila',
    store_type text,
    region text,
    province text,
    city text,
    barangay text
);
comment on table scout.dim_store is
    'One row per store that any sale named. Its place and its type are those of its newest sale that names any.';
comment on column scout.dim_store.time_zone is
    'By its clock the store''s days and hours count: the one column to set by hand. A change makes its sales due again.';

create table scout.dim_device (
    device_id text primary key,
    source_id text not null,
    store_id text
);
comment on table scout.dim_device is
    'One row per device that delivered sales: the source that its sales count under, and the store of its newest sale.';

create table scout.dim_category (product_category text primary key);
comment on table scout.dim_category is 'One row per product category that any sale or item named.';

create table scout.dim_brand (brand_name text primary key);
comment on table scout.dim_brand is 'One row per brand that any sale, item or substitution named.';

create table scout.dim_sku (
    sku text primary key,
    product_name text,
    product_category text,
    brand_name text
);
comment on table scout.dim_sku is
    'One row per sku that any sale, item, combination or substitution named, as the newest item that says anything of
     it describes it; where none does, the newest sale.';

create table scout.dim_date (
    day date primary key,
    year smallint not null,
    quarter smallint not null,
    month smallint not null,
    month_begins date not null,
    iso_year smallint not null,
    iso_week smallint not null,
    week_begins date not null,
    weekday smallint not null,
    weekday_name text not null,
    is_weekend boolean not null
);
comment on table scout.dim_date is
    'One row per calendar day from the first sale to the last, days without sales included, between 2000 and 2099.';
comment on column scout.dim_date.week_begins is 'The Monday of its week.';
comment on column scout.dim_date.weekday is '1 is Monday, 7 is Sunday.';
