-- Gold's five tables, kept up to date by the ETL, and how silver tells them what it touched.
--
-- Triggers tell, and not the steps that write silver: so nothing that changes a sale can forget to, be it a step of
-- the ETL, a migration or a hand. They see the rows as they were and as they are, so a sale that moves to another
-- day, store or device touches both.
create schema if not exists scout_gold;
comment on schema scout_gold is 'Gold as tables: the same answers at any size, kept up to date by the ETL.';

create table scout.groups_due (
    target text not null,
    day date,
    member text not null
);
comment on table scout.groups_due is
    'One row or more per group of a table of gold that is to be recomputed; the ETL''s step of that table removes them.
     Whoever changes sales only adds rows, so nobody waits for anybody.';
comment on column scout.groups_due.target is 'The table: one of scout_gold, scout.store_days or scout.product_days.';
comment on column scout.groups_due.day is 'The group''s day, or the first of its week or month; null for store_rankings.';
comment on column scout.groups_due.member is 'The group''s device or store.';

create table scout.product_growth (
    sku text not null,
    transactions bigint not null,
    quantity numeric(24, 4) not null,
    revenue numeric(24, 2) not null
);
comment on table scout.product_growth is
    'By how much scout.product_days grew (or shrank) since scout_gold.product_insights added it up, or by nothing where
     the sku is described anew: one row or more per sku, until the ETL''s next step has added it.';

create function scout.groups_of(business_day date, device_id text, store_id text)
returns table (target text, day date, member text)
language sql immutable parallel safe
as $$
    select touched.target, touched.day, touched.member
    from (
        values
            ('daily_transactions', business_day, coalesce(device_id, 'unknown')),
            ('product_days', business_day, coalesce(device_id, 'unknown')),
            ('store_days', business_day, coalesce(store_id, 'unknown'))
    ) as touched (target, day, member)
    where touched.day is not null
$$;
comment on function scout.groups_of is
    'The groups that a sale of that day, device and store is added up in, of the tables that read silver; none without a
     day.';

create function scout.note_sales() returns trigger
language plpgsql
as $$
begin
    insert into scout.groups_due (target, day, member)
    select distinct part.target, part.day, part.member
    from (select distinct business_day, device_id, store_id from touched) as sale
    cross join lateral scout.groups_of(sale.business_day, sale.device_id, sale.store_id) as part;
    return null;
end
$$;
comment on function scout.note_sales is 'Trigger: the groups of the sales that a statement touched are due.';

create function scout.note_items() returns trigger
language plpgsql
as $$
begin
    insert into scout.groups_due (target, day, member)
    select distinct part.target, part.day, part.member
    from (select distinct source_id, transaction_key from touched) as item
    -- `offset 0`: looked up sale by sale, however many sales there are.
    cross join lateral (
        select sale.business_day, sale.device_id
        from scout.silver_transactions as sale
        where sale.source_id = item.source_id and sale.transaction_key = item.transaction_key
        offset 0
    ) as sale
    cross join lateral scout.groups_of(sale.business_day, sale.device_id, null) as part
    where part.target = 'product_days';
    return null;
end
$$;
comment on function scout.note_items is
    'Trigger: the devices'' days are due whose items a statement touched. Where the sale goes with them, its own
     trigger tells.';

create function scout.note_stores() returns trigger
language plpgsql
as $$
begin
    insert into scout.groups_due (target, member) select 'store_rankings', store_id from touched;
    return null;
end
$$;
comment on function scout.note_stores is 'Trigger: stores that are described anew are due to be ranked.';

create function scout.note_products() returns trigger
language plpgsql
as $$
begin
    insert into scout.product_growth (sku, transactions, quantity, revenue) select sku, 0, 0, 0 from touched;
    return null;
end
$$;
comment on function scout.note_products is 'Trigger: products that are described anew are due to be ranked.';

create trigger note_inserted after insert on scout.silver_transactions
    referencing new table as touched execute function scout.note_sales();
create trigger note_before_update after update on scout.silver_transactions
    referencing old table as touched execute function scout.note_sales();
create trigger note_after_update after update on scout.silver_transactions
    referencing new table as touched execute function scout.note_sales();
create trigger note_deleted after delete on scout.silver_transactions
    referencing old table as touched execute function scout.note_sales();
create trigger note_inserted after insert on scout.silver_transaction_items
    referencing new table as touched execute function scout.note_items();
create trigger note_before_update after update on scout.silver_transaction_items
    referencing old table as touched execute function scout.note_items();
create trigger note_after_update after update on scout.silver_transaction_items
    referencing new table as touched execute function scout.note_items();
create trigger note_deleted after delete on scout.silver_transaction_items
    referencing old table as touched execute function scout.note_items();
create trigger note_inserted after insert on scout.dim_store
    referencing new table as touched execute function scout.note_stores();
create trigger note_updated after update on scout.dim_store
    referencing new table as touched execute function scout.note_stores();
create trigger note_deleted after delete on scout.dim_store
    referencing old table as touched execute function scout.note_stores();
create trigger note_inserted after insert on scout.dim_sku
    referencing new table as touched execute function scout.note_products();
create trigger note_updated after update on scout.dim_sku
    referencing new table as touched execute function scout.note_products();
create trigger note_deleted after delete on scout.dim_sku
    referencing old table as touched execute function scout.note_products();

-- What is there already. The triggers above hold off whoever writes silver until this has committed.
insert into scout.groups_due (target, day, member)
select distinct part.target, part.day, part.member
from (select distinct business_day, device_id, store_id from scout.silver_transactions) as sale
cross join lateral scout.groups_of(sale.business_day, sale.device_id, sale.store_id) as part;

create table scout_gold.daily_transactions (
    business_day date not null,
    device_id text not null,
    transactions bigint not null,
    voided bigint not null,
    revenue numeric(24, 2) not null,
    average_sale numeric(24, 2),
    largest_sale numeric(24, 2),
    units bigint not null,
    customers bigint not null,
    first_sold_at timestamptz,
    last_sold_at timestamptz,
    primary key (business_day, device_id)
);
comment on table scout_gold.daily_transactions is
    'What each device sold on each day. One row per business day and device with any sale; `unknown` where no device is
     known. Pesos, units and true distincts; all but `voided` leave voided sales out, and sales without a day are left
     out altogether.';
comment on column scout_gold.daily_transactions.business_day is 'Where the store is.';
comment on column scout_gold.daily_transactions.average_sale is 'Pesos; null where all were voided.';

create table scout_gold.weekly_performance (
    week date not null,
    store_id text not null,
    transactions bigint not null,
    revenue numeric(24, 2) not null,
    average_sale numeric(24, 2) not null,
    units bigint not null,
    customers bigint not null,
    days bigint not null,
    revenue_week_before numeric(24, 2),
    growth_percent numeric,
    revenue_percent numeric,
    revenue_rank bigint not null,
    primary key (week, store_id)
);
comment on table scout_gold.weekly_performance is
    'How each store did in each week. One row per week and store with sales; `unknown` for sales that name no store.
     Pesos, units and true distincts; voided sales and sales without a day are left out.';
comment on column scout_gold.weekly_performance.week is 'Its Monday.';
comment on column scout_gold.weekly_performance.days is 'Business days with sales.';
comment on column scout_gold.weekly_performance.revenue_week_before is
    'Of the same store in the calendar week directly before; null when it had no sales then.';
comment on column scout_gold.weekly_performance.revenue_percent is 'Of the revenue of all stores in that week.';
comment on column scout_gold.weekly_performance.revenue_rank is 'In that week, 1 is the best; equals share a rank.';

create table scout_gold.monthly_trends (
    month date not null,
    store_id text not null,
    transactions bigint not null,
    revenue numeric(24, 2) not null,
    average_sale numeric(24, 2) not null,
    units bigint not null,
    customers bigint not null,
    days bigint not null,
    revenue_month_before numeric(24, 2),
    growth_percent numeric,
    revenue_percent numeric,
    revenue_rank bigint not null,
    primary key (month, store_id)
);
create index monthly_trends_store on scout_gold.monthly_trends (store_id);
comment on table scout_gold.monthly_trends is
    'How each store did in each month. One row per month and store with sales; `unknown` for sales that name no store.
     Pesos, units and true distincts; voided sales and sales without a day are left out.';
comment on column scout_gold.monthly_trends.month is 'Its first day.';
comment on column scout_gold.monthly_trends.days is 'Business days with sales.';
comment on column scout_gold.monthly_trends.revenue_month_before is
    'Of the same store in the calendar month directly before; null when it had no sales then.';
comment on column scout_gold.monthly_trends.revenue_percent is 'Of the revenue of all stores in that month.';
comment on column scout_gold.monthly_trends.revenue_rank is 'In that month, 1 is the best; equals share a rank.';

create table scout_gold.store_rankings (
    store_id text primary key,
    store_type text not null,
    region text not null,
    transactions bigint not null,
    revenue numeric(24, 2) not null,
    average_sale numeric(24, 2) not null,
    units bigint not null,
    days bigint not null,
    revenue_per_day numeric(24, 2) not null,
    revenue_percent numeric,
    revenue_rank bigint not null,
    region_rank bigint not null
);
comment on table scout_gold.store_rankings is
    'How the stores compare over all days. One row per store with sales; `unknown` for sales that name no store, and for
     a type or region that none named. Pesos and units; voided sales and sales without a day are left out.';
comment on column scout_gold.store_rankings.days is 'Business days with sales.';
comment on column scout_gold.store_rankings.revenue_percent is 'Of the revenue of all stores.';
comment on column scout_gold.store_rankings.revenue_rank is 'By revenue, 1 is the best; equals share a rank.';
comment on column scout_gold.store_rankings.region_rank is 'The same within its region.';

create table scout_gold.product_insights (
    sku text primary key,
    product_name text,
    product_category text,
    brand_name text,
    transactions bigint not null,
    quantity numeric(24, 4),
    revenue numeric(24, 2) not null,
    average_price numeric,
    first_day date not null,
    last_day date not null,
    revenue_percent numeric,
    revenue_rank bigint not null,
    category_rank bigint not null
);
comment on table scout_gold.product_insights is
    'What each product sold over all days. One row per sku; `unknown` for items whose sku nobody knows, and
     `unallocated` for what items leave over or exceed: together they are the revenue of all sales with a day. Pesos and
     the till''s quantity units; voided sales and sales without a day are left out.';
comment on column scout_gold.product_insights.product_name is
    'As scout.dim_sku describes the sku, as are product_category and brand_name; null where nobody did.';
comment on column scout_gold.product_insights.quantity is 'Null where no till ever said one.';
comment on column scout_gold.product_insights.average_price is 'Pesos for one; null where the quantity is null or 0.';
comment on column scout_gold.product_insights.first_day is 'First business day with a sale of it.';
comment on column scout_gold.product_insights.revenue_percent is 'Of the revenue of all products.';
comment on column scout_gold.product_insights.revenue_rank is 'By revenue, 1 is the best; equals share a rank.';
comment on column scout_gold.product_insights.category_rank is 'The same within its category.';

create table scout.store_days (
    store_id text not null,
    business_day date not null,
    transactions bigint not null,
    revenue numeric(24, 2) not null,
    units bigint not null,
    customers text[] not null,
    primary key (store_id, business_day)
);
comment on table scout.store_days is
    'One row per store and business day with sales: what the weeks and months of scout_gold add up, so that a sale costs
     them a month of days and not a month of sales. Pesos and units; voided sales are left out.';
comment on column scout.store_days.customers is
    'Each customer_id of the day once: those of a week or month are different customers, and can''t be added up.';

create table scout.product_days (
    business_day date not null,
    device_id text not null,
    sku text not null,
    transactions bigint not null,
    quantity numeric(24, 4),
    revenue numeric(24, 2) not null,
    primary key (business_day, device_id, sku)
);
create index product_days_sku on scout.product_days (sku, business_day);
create index product_days_quantity on scout.product_days (sku) where quantity is not null;
comment on table scout.product_days is
    'One row per business day, device and sku with sales: what scout_gold.product_insights adds up, kept so that a day
     that changes can be taken out of the sum and added anew. Pesos and the till''s quantity units.';
