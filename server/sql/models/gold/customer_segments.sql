-- Grain: one row per customer type.
drop view if exists scout.gold_customer_segments;
create view scout.gold_customer_segments as
select
    coalesce(customer_type, 'unknown') as customer_type,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct customer_id) as customers,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent,
    round(count(customer_id)::numeric / nullif(count(distinct customer_id), 0), 2) as transactions_per_customer
from scout.silver_sales
group by coalesce(customer_type, 'unknown')
order by revenue desc, customer_type;
comment on view scout.gold_customer_segments is
    'What regular, occasional and new customers bring. One row per customer type, `unknown` where the till gave none.
     Pesos and percent; voided sales excluded.';
comment on column scout.gold_customer_segments.customer_type is
    'regular, occasional or new; `unknown` where the till gave none.';
comment on column scout.gold_customer_segments.transactions is 'Sales.';
comment on column scout.gold_customer_segments.revenue is 'What was paid, in pesos.';
comment on column scout.gold_customer_segments.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_customer_segments.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_customer_segments.transactions_percent is 'Of all sales.';
comment on column scout.gold_customer_segments.revenue_percent is 'Of the revenue of all sales.';
comment on column scout.gold_customer_segments.transactions_per_customer is
    'Sales that name a customer, for each of them; to 2 places; null where none does.';
