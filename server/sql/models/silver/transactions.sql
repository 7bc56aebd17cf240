-- Grain: one row per (source_id, transaction_key), the latest version. Reads scout.bronze_transactions_raw, and
-- scout_edge.boots for times.
--
-- The latest version is the one captured last (by corrected time), then the one with the highest id: never the one
-- that arrived last, so any order and any repetition of loads ends in the same rows.
create or replace function scout.refresh_silver_transactions(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
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
    -- With a sale that is in here all its versions are: what is stored of it stands for nothing any more.
    again constant bigint[] := scout_bronze.rows_due_again(loads);
    versions_read bigint;
    sales_written bigint;
    fields_refused bigint;
begin
    -- What was refused before, where these loads are typed again.
    delete from scout.silver_rejections as rejection
    using scout.bronze_transaction_rows as bronze
    where (bronze.load_id = any (loads) or bronze.landing_id = any (again))
        and rejection.raw_id = bronze.raw_id
        and rejection.field not like 'items%';

    -- `said` finds each field under the names that tills give it, `typed` reads it. Columns are carried along
    -- rather than joined again: the planner can't know how many rows a load has, and would take a nested loop.
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
            scout.corrected_at(bronze.captured_at, bronze.clock, bronze.mono_ms, measured.zero_at) as captured_at,
            payload.transaction_id as said_transaction_id,
            payload.id as said_id,
            coalesce(payload.store_id, scout.part(payload.store, 'id')) as said_store_id,
            coalesce(payload."timestamp", payload.ts, payload.captured_at, payload.created_at) as said_time,
            payload.ts_utc as said_time_utc,
            payload.captured_at as said_captured_at,
            coalesce(
                payload.peso_value,
                payload.total_amount,
                payload.amount,
                payload.transaction_amount,
                scout.part(payload.amounts, 'transaction_amount')
            ) as said_peso_value,
            payload.units_per_transaction as said_units_per_transaction,
            payload.basket_size as said_basket_size,
            payload.sku as said_sku,
            payload.brand_name as said_brand_name,
            payload.product_category as said_product_category,
            coalesce(scout.part(payload.location, 'region'), scout.part(payload.geo, 'region_id'))
                as said_region,
            scout.part(payload.location, 'province') as said_province,
            coalesce(scout.part(payload.location, 'city'), scout.part(payload.geo, 'city_id')) as said_city,
            coalesce(scout.part(payload.location, 'barangay'), scout.part(payload.geo, 'barangay_id'))
                as said_barangay,
            payload.store_type as said_store_type,
            payload.customer_id as said_customer_id,
            payload.customer_type as said_customer_type,
            coalesce(payload.gender, scout.part(payload.request, 'gender')) as said_gender,
            coalesce(payload.age_bracket, scout.part(payload.request, 'age_bracket')) as said_age_bracket,
            payload.economic_class as said_economic_class,
            coalesce(payload.request_mode, scout.part(payload.request, 'request_mode')) as said_request_mode,
            coalesce(payload.request_type, scout.part(payload.request, 'request_type')) as said_request_type,
            coalesce(payload.suggestion_accepted, scout.part(payload.suggestion, 'accepted'))
                as said_suggestion_accepted,
            payload.campaign_influenced as said_campaign_influenced,
            payload.is_tbwa_client as said_is_tbwa_client,
            coalesce(payload.payment_method, scout.part(payload.request, 'payment_method'))
                as said_payment_method,
            payload.duration_seconds as said_duration_seconds,
            payload.handshake_score as said_handshake_score,
            payload.status as said_status
        from scout.bronze_transaction_rows as bronze
        left join scout_edge.boots as measured
            on bronze.clock = 'unsynced'
            and measured.device_id = bronze.device_id
            and measured.boot = bronze.boot
        cross join lateral jsonb_to_record(
            case when jsonb_typeof(bronze.payload) = 'object' then bronze.payload end
        ) as payload (
            transaction_id jsonb, id jsonb, store_id jsonb, store jsonb,
            "timestamp" jsonb, ts jsonb, captured_at jsonb, created_at jsonb, ts_utc jsonb,
            peso_value jsonb, total_amount jsonb, amount jsonb, transaction_amount jsonb, amounts jsonb,
            units_per_transaction jsonb, basket_size jsonb, sku jsonb, brand_name jsonb, product_category jsonb,
            location jsonb, geo jsonb, store_type jsonb, customer_id jsonb, customer_type jsonb, gender jsonb,
            age_bracket jsonb, economic_class jsonb, request jsonb, request_mode jsonb, request_type jsonb,
            suggestion jsonb, suggestion_accepted jsonb, campaign_influenced jsonb, is_tbwa_client jsonb,
            payment_method jsonb, duration_seconds jsonb, handshake_score jsonb, status jsonb
        )
        where bronze.load_id = any (loads) or bronze.landing_id = any (again)
    ),
    numbered as materialized (
        select
            said.*,
            coalesce(scout.said_text(said_transaction_id), scout.said_text(said_id)) as transaction_id,
            coalesce(
                scout.said_instant(said_time, scout.store_zone()), scout.said_instant(said_time_utc, 'UTC')
            ) as said_at,
            scout.said_number(said_peso_value) as peso_value_number,
            scout.said_number(said_units_per_transaction) as units_number,
            scout.said_number(said_basket_size) as basket_size_number,
            scout.said_number(said_duration_seconds) as duration_number,
            scout.said_number(said_handshake_score) as handshake_number
        from said
    ),
    typed as materialized (
        select
            numbered.*,
            scout.transaction_key(transaction_id, epoch, seq, record_id, identity) as transaction_key,
            -- What others upload was seen by no intake: its own times stand in.
            coalesce(captured_at, scout.said_instant(said_captured_at, scout.store_zone()), said_at) as version_at,
            coalesce(uuid_send(record_id), identity, '')
                || convert_to(concat_ws(':', device_id, epoch, seq), 'UTF8') as version,
            scout.said_text(said_store_id) as store_id,
            coalesce(said_at, captured_at) as sold_at,
            scout.within(peso_value_number, 1e12, 2) as peso_value,
            scout.whole(units_number) as units_per_transaction,
            scout.whole(basket_size_number) as basket_size,
            scout.said_text(said_sku) as sku,
            scout.said_text(said_brand_name) as brand_name,
            scout.said_text(said_product_category) as product_category,
            scout.said_text(said_region) as region,
            scout.said_text(said_province) as province,
            scout.said_text(said_city) as city,
            scout.said_text(said_barangay) as barangay,
            words -> 'store_type' ->> lower(scout.said_text(said_store_type)) as store_type,
            scout.said_text(said_customer_id) as customer_id,
            words -> 'customer_type' ->> lower(scout.said_text(said_customer_type)) as customer_type,
            words -> 'gender' ->> lower(scout.said_text(said_gender)) as gender,
            words -> 'age_bracket' ->> lower(scout.said_text(said_age_bracket)) as age_bracket,
            words -> 'economic_class' ->> lower(scout.said_text(said_economic_class)) as economic_class,
            words -> 'request_mode' ->> lower(scout.said_text(said_request_mode)) as request_mode,
            words -> 'request_type' ->> lower(scout.said_text(said_request_type)) as request_type,
            scout.said_boolean(said_suggestion_accepted) as suggestion_accepted,
            scout.said_boolean(said_campaign_influenced) as campaign_influenced,
            scout.said_boolean(said_is_tbwa_client) as is_tbwa_client,
            words -> 'payment_method' ->> lower(scout.said_text(said_payment_method)) as payment_method,
            scout.whole(duration_number) as duration_seconds,
            case when handshake_number between 0 and 1 then round(handshake_number, 2) end as handshake_score,
            words -> 'status' ->> lower(scout.said_text(said_status)) as status
        from numbered
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select raw_id, field.name, case when field.said #>> '{}' ~ '\S' then field.reason else 'missing' end
        from typed
        cross join lateral (
            values
                (
                    'transaction_id', coalesce(said_transaction_id, said_id), transaction_id is null,
                    'not text', true
                ),
                ('store_id', said_store_id, store_id is null, 'not text', true),
                ('timestamp', coalesce(said_time, said_time_utc), said_at is null, 'not a time', true),
                ('peso_value', said_peso_value, peso_value is null, 'not an amount', true),
                (
                    'units_per_transaction', said_units_per_transaction, units_per_transaction is null,
                    'not a whole number', false
                ),
                ('basket_size', said_basket_size, basket_size is null, 'not a whole number', false),
                (
                    'duration_seconds', said_duration_seconds, duration_seconds is null,
                    'not a whole number', false
                ),
                (
                    'handshake_score', said_handshake_score, handshake_score is null,
                    'not a number from 0 to 1', false
                ),
                ('sku', said_sku, sku is null, 'not text', false),
                ('brand_name', said_brand_name, brand_name is null, 'not text', false),
                ('product_category', said_product_category, product_category is null, 'not text', false),
                ('region', said_region, region is null, 'not text', false),
                ('province', said_province, province is null, 'not text', false),
                ('city', said_city, city is null, 'not text', false),
                ('barangay', said_barangay, barangay is null, 'not text', false),
                ('customer_id', said_customer_id, customer_id is null, 'not text', false),
                ('store_type', said_store_type, store_type is null, 'not a known value', false),
                ('customer_type', said_customer_type, customer_type is null, 'not a known value', false),
                ('gender', said_gender, gender is null, 'not a known value', false),
                ('age_bracket', said_age_bracket, age_bracket is null, 'not a known value', false),
                ('economic_class', said_economic_class, economic_class is null, 'not a known value', false),
                ('request_mode', said_request_mode, request_mode is null, 'not a known value', false),
                ('request_type', said_request_type, request_type is null, 'not a known value', false),
                ('payment_method', said_payment_method, payment_method is null, 'not a known value', false),
                ('status', said_status, status is null, 'not a known value', false),
                (
                    'suggestion_accepted', said_suggestion_accepted, suggestion_accepted is null,
                    'not true or false', false
                ),
                (
                    'campaign_influenced', said_campaign_influenced, campaign_influenced is null,
                    'not true or false', false
                ),
                ('is_tbwa_client', said_is_tbwa_client, is_tbwa_client is null, 'not true or false', false)
        ) as field (name, said, is_untyped, reason, is_required)
        where is_readable
            and field.is_untyped
            and (field.is_required or field.said #>> '{}' ~ '\S')
        union all
        select raw_id, 'payload', coalesce(scout_bronze.payload_problem(payload_text), 'not a JSON object')
        from said
        where not is_readable
        returning raw_id
    ),
    latest as (
        select distinct on (source_id, transaction_key) *
        from typed
        order by source_id, transaction_key, version_at desc nulls last, version desc
    ),
    written as (
        insert into scout.silver_transactions as sale (
            source_id, transaction_key, transaction_id, raw_id, device_id, epoch, seq, captured_at, version_at,
            version, store_id, sold_at, business_day, business_hour, peso_value, units_per_transaction,
            basket_size, sku, brand_name, product_category, region, province, city, barangay, store_type,
            customer_id, customer_type, gender, age_bracket, economic_class, request_mode, request_type,
            suggestion_accepted, campaign_influenced, is_tbwa_client, payment_method, duration_seconds,
            handshake_score, status, revision, voided_at, suggestion_offered
        )
        select
            source_id, transaction_key, transaction_id, raw_id, device_id, epoch, seq, captured_at, version_at,
            version, store_id, sold_at, scout.business_day(sold_at), scout.business_hour(sold_at), peso_value,
            units_per_transaction, basket_size, sku, brand_name, product_category, region, province, city,
            barangay, store_type, customer_id, customer_type, gender, age_bracket, economic_class, request_mode,
            request_type, suggestion_accepted, campaign_influenced, is_tbwa_client, payment_method,
            duration_seconds, handshake_score, status, null, null, null
        from latest
        on conflict (source_id, transaction_key) do update set (
            source_id, transaction_key, transaction_id, raw_id, device_id, epoch, seq, captured_at, version_at,
            version, store_id, sold_at, business_day, business_hour, peso_value, units_per_transaction,
            basket_size, sku, brand_name, product_category, region, province, city, barangay, store_type,
            customer_id, customer_type, gender, age_bracket, economic_class, request_mode, request_type,
            suggestion_accepted, campaign_influenced, is_tbwa_client, payment_method, duration_seconds,
            handshake_score, status, revision, voided_at, suggestion_offered
        ) = (select excluded.*)
        where (
                sale.raw_id = any (again)
                or (coalesce(sale.version_at, '-infinity'), sale.version)
                    <= (coalesce(excluded.version_at, '-infinity'), excluded.version)
            )
            and (sale.*) is distinct from (excluded.*)
        returning raw_id
    )
    select (select count(*) from said), (select count(*) from written), (select count(*) from refused)
    into versions_read, sales_written, fields_refused;

    return next row(
        'scout.silver_transactions', versions_read, sales_written, versions_read - sales_written, fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_transactions is
    'Types the sales of these loads and keeps the latest version of each. May be run again; then it writes what
     changed. Refused are fields, with their reasons in scout.silver_rejections.';
