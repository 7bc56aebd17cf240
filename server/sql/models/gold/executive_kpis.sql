-- Grain: one row, always.
drop view if exists scout.gold_executive_kpis;
create view scout.gold_executive_kpis as
with newest as (
    select max(business_day) as last_day from scout.silver_sales
),
figures as (
    select
        count(*) as transactions,
        coalesce(sum(revenue), 0) as revenue,
        round(coalesce(sum(revenue), 0) / nullif(count(*), 0), 2) as average_sale,
        coalesce(sum(units_per_transaction), 0) as units,
        count(distinct store_id) as stores,
        count(distinct device_id) as devices,
        count(distinct customer_id) as customers,
        min(business_day) as first_day,
        max(business_day) as last_day,
        count(distinct business_day) as days,
        coalesce(sum(revenue) filter (where business_day > last_day - 7), 0) as revenue_last_7_days,
        coalesce(sum(revenue) filter (where business_day > last_day - 14 and business_day <= last_day - 7), 0)
            as revenue_7_days_before,
        (select count(*) from scout.silver_transactions where status = 'void') as voided
    from scout.silver_sales
    cross join newest
)
select
    figures.*,
    round(100 * (revenue_last_7_days - revenue_7_days_before) / nullif(revenue_7_days_before, 0), 2)
        as revenue_change_percent
from figures;
comment on view scout.gold_executive_kpis is
    'The business at a glance: exactly one row. Pesos and counts over all days; the last 7 days end with the day of
     the newest sale. All but `voided` leave voided sales out.';
comment on column scout.gold_executive_kpis.transactions is 'Sales.';
comment on column scout.gold_executive_kpis.revenue is 'What was paid, in pesos.';
comment on column scout.gold_executive_kpis.average_sale is
    'Revenue of a sale, in pesos to the centavo; null where there is none.';
comment on column scout.gold_executive_kpis.units is 'Units sold, as far as tills say.';
comment on column scout.gold_executive_kpis.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_executive_kpis.devices is 'Different devices, of the sales that name one.';
comment on column scout.gold_executive_kpis.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_executive_kpis.first_day is 'Business day of the first sale.';
comment on column scout.gold_executive_kpis.last_day is 'Business day of the last sale.';
comment on column scout.gold_executive_kpis.days is 'Business days with sales.';
comment on column scout.gold_executive_kpis.revenue_last_7_days is
    'In pesos, of the 7 calendar days that end with last_day.';
comment on column scout.gold_executive_kpis.revenue_7_days_before is 'In pesos, of the 7 calendar days before those.';
comment on column scout.gold_executive_kpis.voided is 'Sales that were voided.';
comment on column scout.gold_executive_kpis.revenue_change_percent is
    'Of the last 7 days against the 7 before; null where those had no revenue.';
