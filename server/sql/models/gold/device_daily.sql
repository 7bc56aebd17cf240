-- Grain: one row per device and business day with sales, voided ones included.
drop view if exists scout.gold_device_daily;
create view scout.gold_device_daily as
select
    coalesce(device_id, 'unknown') as device_id,
    business_day,
    count(*) filter (where status is distinct from 'void') as transactions,
    count(*) filter (where status = 'void') as voided,
    coalesce(sum(peso_value) filter (where status is distinct from 'void'), 0) as revenue,
    round(
        coalesce(sum(peso_value) filter (where status is distinct from 'void'), 0)
            / nullif(count(*) filter (where status is distinct from 'void'), 0),
        2
    ) as average_sale,
    coalesce(sum(units_per_transaction) filter (where status is distinct from 'void'), 0) as units,
    count(distinct store_id) filter (where status is distinct from 'void') as stores,
    min(sold_at) filter (where status is distinct from 'void') as first_sold_at,
    max(sold_at) filter (where status is distinct from 'void') as last_sold_at
from scout.silver_transactions
group by coalesce(device_id, 'unknown'), business_day
order by device_id, business_day;
comment on view scout.gold_device_daily is
    'What each device brought on each day. One row per device and business day where the store is. Pesos, counts and
     times; all but `voided` leave voided sales out.';
comment on column scout.gold_device_daily.device_id is '`unknown` for sales whose device nobody knows.';
comment on column scout.gold_device_daily.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_device_daily.transactions is 'Sales.';
comment on column scout.gold_device_daily.voided is 'Sales that were voided.';
comment on column scout.gold_device_daily.revenue is 'What was paid, in pesos.';
comment on column scout.gold_device_daily.average_sale is
    'Revenue of a sale, in pesos to the centavo; null where all were voided.';
comment on column scout.gold_device_daily.units is 'Units sold, as far as tills say.';
comment on column scout.gold_device_daily.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_device_daily.first_sold_at is 'When the first sale was; null where all were voided.';
comment on column scout.gold_device_daily.last_sold_at is 'When the last sale was; null where all were voided.';
