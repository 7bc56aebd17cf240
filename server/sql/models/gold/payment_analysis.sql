-- Grain: one row per way of paying.
drop view if exists scout.gold_payment_analysis;
create view scout.gold_payment_analysis as
select
    coalesce(payment_method, 'unknown') as payment_method,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent
from scout.silver_sales
group by coalesce(payment_method, 'unknown')
order by revenue desc, payment_method;
comment on view scout.gold_payment_analysis is
    'How customers pay. One row per payment method, `unknown` where the till gave none. Pesos and percent; voided
     sales excluded.';
comment on column scout.gold_payment_analysis.payment_method is '`unknown` where the till gave none.';
comment on column scout.gold_payment_analysis.transactions is 'Sales.';
comment on column scout.gold_payment_analysis.revenue is 'What was paid, in pesos.';
comment on column scout.gold_payment_analysis.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_payment_analysis.transactions_percent is 'Of all sales.';
comment on column scout.gold_payment_analysis.revenue_percent is 'Of the revenue of all sales.';
