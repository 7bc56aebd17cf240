-- Grain: one row, always.
drop view if exists scout.gold_executive_kpis;
create view scout.gold_executive_kpis as
with sale as (
    select * from scout.silver_transactions where status is distinct from 'void'
),
newest as (
    select max(business_day) as last_day from sale
)
select
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / nullif(count(*), 0), 2) as average_sale,
    coalesce(sum(units_per_transaction), 0) as units,
    count(distinct store_id) as stores,
    count(distinct device_id) as devices,
    count(distinct customer_id) as customers,
    min(business_day) as first_day,
    max(business_day) as last_day,
    count(distinct business_day) as days,
    coalesce(sum(peso_value) filter (where business_day > last_day - 7), 0) as revenue_last_7_days,
    coalesce(sum(peso_value) filter (where business_day > last_day - 14 and business_day <= last_day - 7), 0)
        as revenue_7_days_before,
    (select count(*) from scout.silver_transactions where status = 'void') as voided
from sale
cross join newest;
comment on view scout.gold_executive_kpis is
    'The business at a glance: exactly one row. Pesos and counts over all days; the last 7 days end with the day of
     the newest sale. All but `voided` leave voided sales out.';
