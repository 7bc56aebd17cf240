-- Grain: one row per customer whom a sale names.
drop view if exists scout.gold_customer_activity;
create view scout.gold_customer_activity as
with customer as (
    select
        customer_id,
        count(*) as transactions,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as average_sale,
        count(distinct store_id) as stores,
        count(distinct business_day) as days,
        min(business_day) as first_day,
        max(business_day) as last_day
    from scout.silver_sales
    where customer_id is not null
    group by customer_id
),
newest as (
    select max(business_day) as day from scout.silver_sales
)
select
    customer.*,
    newest.day - customer.last_day as days_since_last,
    case
        when newest.day - customer.last_day <= 30 then 'active'
        when newest.day - customer.last_day <= 90 then 'lapsing'
        when customer.last_day is not null then 'lapsed'
    end as activity
from customer
cross join newest
order by revenue desc, customer_id;
comment on view scout.gold_customer_activity is
    'What each customer buys, and whether they still come, best first. One row per customer_id that a sale names.
     Pesos and days, counted to the day of the newest sale of all; voided sales excluded.';
comment on column scout.gold_customer_activity.customer_id is 'As the till gave it.';
comment on column scout.gold_customer_activity.transactions is 'Sales.';
comment on column scout.gold_customer_activity.revenue is 'What was paid, in pesos.';
comment on column scout.gold_customer_activity.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_customer_activity.stores is 'Different stores that sold to them.';
comment on column scout.gold_customer_activity.days is 'Business days on which they bought.';
comment on column scout.gold_customer_activity.first_day is 'Business day of the first sale.';
comment on column scout.gold_customer_activity.last_day is 'Business day of the last sale.';
comment on column scout.gold_customer_activity.days_since_last is
    'Days from last_day to the business day of the newest sale of all.';
comment on column scout.gold_customer_activity.activity is
    'active: bought in the last 30 days; lapsing: in the last 90; else lapsed. Null where no day is known.';
