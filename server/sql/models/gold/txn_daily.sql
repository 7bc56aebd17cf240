-- Grain: one row per business day with sales, voided ones included.
drop view if exists scout.gold_txn_daily;
create view scout.gold_txn_daily as
select
    business_day,
    count(*) filter (where status is distinct from 'void') as transactions,
    count(*) filter (where status = 'void') as voided,
    coalesce(sum(units_per_transaction) filter (where status is distinct from 'void'), 0) as units,
    round(avg(units_per_transaction) filter (where status is distinct from 'void'), 2) as average_units,
    round(avg(basket_size) filter (where status is distinct from 'void'), 2) as average_basket_size,
    count(distinct customer_id) filter (where status is distinct from 'void') as customers,
    count(distinct store_id) filter (where status is distinct from 'void') as stores,
    count(distinct device_id) filter (where status is distinct from 'void') as devices
from scout.silver_transactions
group by business_day
order by business_day;
comment on view scout.gold_txn_daily is
    'How many sales, units, customers and stores each business day had. One row per day where the store is; null for
     sales whose time nobody knows. Counts; all but `voided` leave voided sales out.';
comment on column scout.gold_txn_daily.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_txn_daily.transactions is 'Sales.';
comment on column scout.gold_txn_daily.voided is 'Sales that were voided.';
comment on column scout.gold_txn_daily.units is 'Units sold, as far as tills say.';
comment on column scout.gold_txn_daily.average_units is 'Units of a sale, of those that say; to 2 places.';
comment on column scout.gold_txn_daily.average_basket_size is 'Items of a sale, of those that say; to 2 places.';
comment on column scout.gold_txn_daily.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_txn_daily.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_txn_daily.devices is 'Different devices, of the sales that name one.';
