-- Grain: one row per row of scout.bronze_transactions_raw: the version of a sale that it tells of, typed. Reads
-- scout_edge.boots and scout.dim_store besides, for times.
create or replace function scout.type_sales(
    loads bigint[], out typed scout.silver_transactions[], out fields_refused bigint
)
language plpgsql
as $$
#variable_conflict use_column
declare
    -- {"gender": {"male": "male", …}, …}
    words constant jsonb := (
        select jsonb_object_agg(field, meanings)
        from (
            select field, jsonb_object_agg(word, meaning) as meanings
            from scout.vocabulary
            group by field
        ) as choices
    );
    again constant bigint[] := scout_bronze.rows_due_again(loads);
begin
    -- What was refused before, where these loads are typed again. The steps after this one name theirs anew.
    delete from scout.silver_rejections as rejection
    using scout.bronze_transaction_rows as bronze
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and rejection.raw_id = bronze.raw_id;

    -- `said` finds each field where tills put it, `read` reads it. Columns are carried along rather than joined
    -- again: the planner can't know how many rows a load has.
    with said as materialized (
        select
            bronze.raw_id,
            bronze.payload is not null as is_readable,
            bronze.payload_text,
            coalesce(bronze.source_id, bronze.device_id, '') as source_id,
            bronze.device_id,
            bronze.epoch,
            bronze.seq,
            bronze.record_id,
            bronze.identity,
            bronze.clock,
            scout.corrected_at(bronze.captured_at, bronze.clock, bronze.mono_ms, measured.zero_at) as seen_at,
            coalesce(
                (select time_zone from scout.dim_store where store_id = scout.said_text(told.store_id)),
                scout.store_zone()
            ) as zone,
            told.*
        from scout.bronze_transaction_rows as bronze
        left join scout_edge.boots as measured
            on bronze.clock = 'unsynced'
            and measured.device_id = bronze.device_id
            and measured.boot = bronze.boot
        cross join lateral scout.told_sale(bronze.payload) as told
        where bronze.load_id = any (loads) or bronze.raw_id = any (again)
    ),
    timed as materialized (
        select
            said.*,
            scout.said_instant("timestamp", coalesce(timestamp_zone, zone)) as said_at,
            scout.said_amount(peso_value) as peso_value_number,
            scout.said_number(handshake_score) as handshake_number,
            scout.said_number(revision) as revision_number,
            -- What others upload was seen by no intake: its own times stand in.
            case when seen_at is null then scout.said_instant(captured_at, coalesce(captured_at_zone, zone)) end
                as said_captured_at
        from said
    ),
    read as materialized (
        select
            timed.*,
            sale::scout.silver_transactions as sale
        from timed
        cross join lateral (
            select
                coalesce(said_at, seen_at) as sold_at,
                -- In an imported file the older devices wrote into each sale when it was taken.
                case when clock = 'file' then coalesce(said_at, seen_at) else seen_at end as captured_at,
                coalesce(
                    case when clock = 'file' then said_at end, seen_at, said_captured_at, said_at
                ) as version_at,
                words -> 'status' ->> lower(scout.said_text(timed.status)) as status
        ) as at
        -- In the order of the table's columns.
        cross join lateral (
            select
                source_id,
                scout.transaction_key(
                    scout.said_text(transaction_id), epoch, seq, record_id, coalesce(identity, int8send(raw_id))
                ) as transaction_key,
                scout.said_text(transaction_id) as transaction_id,
                raw_id,
                device_id,
                epoch,
                seq,
                at.captured_at,
                at.version_at,
                coalesce(uuid_send(record_id), identity, '')
                    || convert_to(concat_ws(':', device_id, epoch, seq), 'UTF8') as version,
                scout.said_name(store_id) as store_id,
                at.sold_at,
                scout.business_day(at.sold_at, zone) as business_day,
                scout.business_hour(at.sold_at, zone) as business_hour,
                scout.within(peso_value_number, 1e12, 2) as peso_value,
                scout.said_count(units_per_transaction) as units_per_transaction,
                scout.said_count(basket_size) as basket_size,
                scout.said_name(sku) as sku,
                scout.said_name(brand_name) as brand_name,
                scout.said_name(product_category) as product_category,
                scout.said_text(region) as region,
                scout.said_text(province) as province,
                scout.said_text(city) as city,
                scout.said_text(barangay) as barangay,
                words -> 'store_type' ->> lower(scout.said_text(store_type)) as store_type,
                scout.said_text(customer_id) as customer_id,
                words -> 'customer_type' ->> lower(scout.said_text(customer_type)) as customer_type,
                words -> 'gender' ->> lower(scout.said_text(gender)) as gender,
                words -> 'age_bracket' ->> lower(scout.said_text(age_bracket)) as age_bracket,
                words -> 'economic_class' ->> lower(scout.said_text(economic_class)) as economic_class,
                words -> 'request_mode' ->> lower(scout.said_text(request_mode)) as request_mode,
                words -> 'request_type' ->> lower(scout.said_text(request_type)) as request_type,
                scout.said_boolean(suggestion_accepted) as suggestion_accepted,
                scout.said_boolean(campaign_influenced) as campaign_influenced,
                scout.said_boolean(is_tbwa_client) as is_tbwa_client,
                words -> 'payment_method' ->> lower(scout.said_text(payment_method)) as payment_method,
                scout.said_count(duration_seconds) as duration_seconds,
                case when handshake_number between 0 and 1 then round(handshake_number, 2) end as handshake_score,
                at.status,
                scout.within(revision_number, 1e15, 6) as revision,
                case when at.status = 'void' then at.version_at end as voided_at,
                scout.said_boolean(suggestion_offered) as suggestion_offered
        ) as sale
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select (sale).raw_id, field.name, case when blank.is_blank then 'missing' else field.reason end
        from read
        cross join lateral (
            values
                ('transaction_id', transaction_id, (sale).transaction_id is null, 'not text', true),
                ('store_id', store_id, (sale).store_id is null, 'not text, or too long', true),
                ('timestamp', "timestamp", said_at is null, 'not a time', true),
                ('peso_value', peso_value, (sale).peso_value is null, 'not an amount', true),
                (
                    'units_per_transaction', units_per_transaction, (sale).units_per_transaction is null,
                    'not a whole number from 0', false
                ),
                ('basket_size', basket_size, (sale).basket_size is null, 'not a whole number from 0', false),
                (
                    'duration_seconds', duration_seconds, (sale).duration_seconds is null,
                    'not a whole number from 0', false
                ),
                ('handshake_score', handshake_score, (sale).handshake_score is null, 'not a number from 0 to 1', false),
                ('revision', revision, (sale).revision is null, 'not a number', false),
                ('sku', sku, (sale).sku is null, 'not text, or too long', false),
                ('brand_name', brand_name, (sale).brand_name is null, 'not text, or too long', false),
                ('product_category', product_category, (sale).product_category is null, 'not text, or too long', false),
                ('region', region, (sale).region is null, 'not text', false),
                ('province', province, (sale).province is null, 'not text', false),
                ('city', city, (sale).city is null, 'not text', false),
                ('barangay', barangay, (sale).barangay is null, 'not text', false),
                ('customer_id', customer_id, (sale).customer_id is null, 'not text', false),
                ('store_type', store_type, (sale).store_type is null, 'not a known value', false),
                ('customer_type', customer_type, (sale).customer_type is null, 'not a known value', false),
                ('gender', gender, (sale).gender is null, 'not a known value', false),
                ('age_bracket', age_bracket, (sale).age_bracket is null, 'not a known value', false),
                ('economic_class', economic_class, (sale).economic_class is null, 'not a known value', false),
                ('request_mode', request_mode, (sale).request_mode is null, 'not a known value', false),
                ('request_type', request_type, (sale).request_type is null, 'not a known value', false),
                ('payment_method', payment_method, (sale).payment_method is null, 'not a known value', false),
                ('status', status, (sale).status is null, 'not a known value', false),
                (
                    'suggestion_offered', suggestion_offered, (sale).suggestion_offered is null,
                    'not true or false', false
                ),
                (
                    'suggestion_accepted', suggestion_accepted, (sale).suggestion_accepted is null,
                    'not true or false', false
                ),
                (
                    'campaign_influenced', campaign_influenced, (sale).campaign_influenced is null,
                    'not true or false', false
                ),
                ('is_tbwa_client', is_tbwa_client, (sale).is_tbwa_client is null, 'not true or false', false)
        ) as field (name, said, is_untyped, reason, is_required)
        cross join lateral (
            select coalesce(btrim(field.said #>> '{}', E' \t\r\n'), '') = '' as is_blank
        ) as blank
        -- Nearly every sale is typed whole, and need not be taken apart.
        where is_readable
            and (
                num_nulls((sale).transaction_id, (sale).store_id, said_at, (sale).peso_value) > 0
                or num_nonnulls(
                    units_per_transaction, basket_size, duration_seconds, handshake_score, revision, sku, brand_name,
                    product_category, region, province, city, barangay, customer_id, store_type, customer_type, gender,
                    age_bracket, economic_class, request_mode, request_type, payment_method, status,
                    suggestion_offered, suggestion_accepted, campaign_influenced, is_tbwa_client
                ) > num_nonnulls(
                    (sale).units_per_transaction, (sale).basket_size, (sale).duration_seconds, (sale).handshake_score,
                    (sale).revision, (sale).sku, (sale).brand_name, (sale).product_category, (sale).region,
                    (sale).province, (sale).city, (sale).barangay, (sale).customer_id, (sale).store_type,
                    (sale).customer_type, (sale).gender, (sale).age_bracket, (sale).economic_class,
                    (sale).request_mode, (sale).request_type, (sale).payment_method, (sale).status,
                    (sale).suggestion_offered, (sale).suggestion_accepted, (sale).campaign_influenced,
                    (sale).is_tbwa_client
                )
            )
            and field.is_untyped
            and (field.is_required or not blank.is_blank)
        union all
        select (sale).raw_id, 'payload', coalesce(scout_bronze.payload_problem(payload_text), 'not a JSON object')
        from read
        where not is_readable
        returning raw_id
    )
    select array_agg(sale), (select count(*) from refused)
    into type_sales.typed, type_sales.fields_refused
    from read;
end
$$;
comment on function scout.type_sales is
    'Types the versions of sales that these loads brought or made due again. Refused are fields, with their reasons in
     scout.silver_rejections.';
