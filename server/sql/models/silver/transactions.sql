-- Grain: one row per (source_id, transaction_key), the latest version; the earlier ones are rows of
-- scout.silver_transaction_versions. Reads scout.bronze_transactions_raw, scout_edge.boots and scout.dim_store for
-- times.
--
-- The latest version has the highest revision, where the till counts them, then was captured last (by corrected
-- time), then has the highest id: never the one that arrived last, so any order and any repetition of loads ends in
-- the same rows.
create or replace function scout.refresh_silver_transactions(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
-- Silver is looked up row by row: joined as a whole, it would cost more with every row that is there.
set enable_hashjoin = off
set enable_mergejoin = off
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
    again constant bigint[] := scout_bronze.rows_due_again(loads);
    arrived scout.silver_transactions[];
    arrived_ids bigint[];
    latest scout.silver_transactions[];
    earlier scout.silver_transactions[];
    gone_sources text[];
    gone_keys text[];
    sales_written bigint;
    fields_refused bigint;
begin
    -- What was refused before, where these loads are typed again. The steps after this one name theirs anew.
    delete from scout.silver_rejections as rejection
    using scout.bronze_transaction_rows as bronze
    where (bronze.load_id = any (loads) or bronze.raw_id = any (again))
        and rejection.raw_id = bronze.raw_id;

    -- `said` finds each field where tills put it, `typed` reads it. Columns are carried along rather than joined
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
    typed as materialized (
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
        ) as read
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
                read.captured_at,
                read.version_at,
                coalesce(uuid_send(record_id), identity, '')
                    || convert_to(concat_ws(':', device_id, epoch, seq), 'UTF8') as version,
                scout.said_text(store_id) as store_id,
                read.sold_at,
                scout.business_day(read.sold_at, zone) as business_day,
                scout.business_hour(read.sold_at, zone) as business_hour,
                scout.within(peso_value_number, 1e12, 2) as peso_value,
                scout.said_count(units_per_transaction) as units_per_transaction,
                scout.said_count(basket_size) as basket_size,
                scout.said_text(sku) as sku,
                scout.said_text(brand_name) as brand_name,
                scout.said_text(product_category) as product_category,
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
                read.status,
                scout.within(revision_number, 1e15, 6) as revision,
                case when read.status = 'void' then read.version_at end as voided_at,
                scout.said_boolean(suggestion_offered) as suggestion_offered
        ) as sale
    ),
    refused as (
        insert into scout.silver_rejections (raw_id, field, reason)
        select (sale).raw_id, field.name, case when blank.is_blank then 'missing' else field.reason end
        from typed
        cross join lateral (
            values
                ('transaction_id', transaction_id, (sale).transaction_id is null, 'not text', true),
                ('store_id', store_id, (sale).store_id is null, 'not text', true),
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
                ('sku', sku, (sale).sku is null, 'not text', false),
                ('brand_name', brand_name, (sale).brand_name is null, 'not text', false),
                ('product_category', product_category, (sale).product_category is null, 'not text', false),
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
        from typed
        where not is_readable
        returning raw_id
    )
    select array_agg(sale), array_agg((sale).raw_id), (select count(*) from refused)
    into arrived, arrived_ids, fields_refused
    from typed;

    -- All versions of the sales that the arrived ones tell of, and of those that they told of when they were typed
    -- before: as they arrived now, else as they are stored.
    with touched as materialized (
        select source_id, transaction_key from unnest(arrived)
        union
        select stored.source_id, stored.transaction_key
        from unnest(arrived) as version
        cross join lateral (
            select sale.source_id, sale.transaction_key
            from scout.silver_transactions as sale
            where sale.raw_id = version.raw_id
            union all
            select former.source_id, former.transaction_key
            from scout.silver_transaction_versions as former
            where former.raw_id = version.raw_id
        ) as stored
    ),
    version as (
        select arrived_version as sale from unnest(arrived) as arrived_version
        union all
        select row(stored.*)::scout.silver_transactions
        from touched
        cross join lateral (
            select *
            from scout.silver_transactions as sale
            where sale.source_id = touched.source_id and sale.transaction_key = touched.transaction_key
            union all
            select *
            from scout.silver_transaction_versions as former
            where former.source_id = touched.source_id and former.transaction_key = touched.transaction_key
        ) as stored
        where stored.raw_id <> all (arrived_ids)
    ),
    ranked as (
        select
            sale,
            row_number() over (
                partition by (sale).source_id, (sale).transaction_key
                order by
                    (sale).revision desc nulls last, (sale).version_at desc nulls last, (sale).version desc,
                    (sale).raw_id desc
            ) = 1 as is_latest
        from version
    ),
    gone as (
        select source_id, transaction_key from touched
        except
        select (sale).source_id, (sale).transaction_key from version
    )
    select
        (select array_agg(sale) from ranked where is_latest),
        (select array_agg(sale) from ranked where not is_latest),
        (select array_agg(source_id) from gone),
        (select array_agg(transaction_key) from gone)
    into latest, earlier, gone_sources, gone_keys;

    -- Only what changed is written, for gold follows that.
    delete from scout.silver_transactions as stored using unnest(earlier) as version
    where stored.raw_id = version.raw_id;
    delete from scout.silver_transactions as stored using unnest(latest) as version
    where stored.raw_id = version.raw_id and (stored.*) is distinct from (version.*);
    insert into scout.silver_transactions
    select * from unnest(latest)
    on conflict (source_id, transaction_key) do nothing;
    get diagnostics sales_written = row_count;

    delete from scout.silver_transaction_versions as stored using unnest(latest) as version
    where stored.raw_id = version.raw_id;
    delete from scout.silver_transaction_versions as stored using unnest(earlier) as version
    where stored.raw_id = version.raw_id and (stored.*) is distinct from (version.*);
    insert into scout.silver_transaction_versions
    select * from unnest(earlier)
    on conflict (raw_id) do nothing;

    -- What was sold in a sale of which nothing tells any more. Other sales' lines are replaced by the next steps.
    if gone_keys is not null then
        delete from scout.silver_transaction_items as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
        delete from scout.silver_combo_items as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
        delete from scout.silver_substitutions as line
        using unnest(gone_sources, gone_keys) as gone (source_id, transaction_key)
        where line.source_id = gone.source_id and line.transaction_key = gone.transaction_key;
    end if;

    return next row(
        'scout.silver_transactions',
        coalesce(cardinality(arrived), 0),
        sales_written,
        coalesce(cardinality(arrived), 0) - sales_written,
        fields_refused
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_silver_transactions is
    'Types the sales of these loads, keeps the latest version of each and the earlier ones beside it. May be run
     again; then it writes what changed. Refused are fields, with their reasons in scout.silver_rejections.';
