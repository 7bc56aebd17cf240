with sale as (
    select
        number,
        'pi-' || number %% %(shops)s as device_id,
        number / %(shops)s as place,
        -- 40 a day from eight in the morning on, in every shop.
        timestamptz '2024-01-01 08:00+08'
            + number / %(shops)s / 40 * interval '1 day'
            + number / %(shops)s %% 40 * interval '20 minutes'
            + number %% %(shops)s * interval '0.5 seconds' as sold_at,
        10 + number %% 50 as price
    from generate_series(%(first)s::bigint, %(first)s::bigint + %(rows)s - 1) as number
),
load as (
    insert into scout_bronze.loads (rows) values (%(rows)s) returning load_id
)
insert into scout_bronze.transactions_raw (
    load_id, device_id, epoch, seq, id, captured_at, clock, boot, mono_ms, payload, object_key, line
)
select
    load_id,
    device_id,
    '00000000000000aa',
    place + 1,
    overlay(
        md5(number::text) placing lpad(to_hex((extract(epoch from sold_at) * 1000)::bigint), 12, '0') from 1
    )::uuid,
    sold_at,
    'synced',
    'boot-1',
    place,
    format(
        '{"transaction_id":"t-%%s","store_id":"%%s","timestamp":"%%s","peso_value":%%s,"units_per_transaction":3,'
        '"customer_id":"c-%%s","payment_method":"cash","location":{"region":"NCR","city":"Quezon City"},"items":['
        '{"sku":"sku-%%s","product_name":"Soda","brand_name":"Lakan","qty":1,"total_price":%%s},'
        '{"sku":"sku-%%s","product_name":"Soap","brand_name":"Tala","qty":2,"total_price":%%s}]}',
        number,
        number %% %(shops)s,
        to_char(sold_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        -- One in twenty doesn't add up.
        2 * price + (number %% 20 = 0)::integer,
        number * 7919 %% 50,
        number * 7919 %% 1000,
        price,
        number * 104729 %% 1000,
        price
    ),
    'bench',
    number - %(first)s + 1
from sale
cross join load
