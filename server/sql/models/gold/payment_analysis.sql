-- Grain: one row per way of paying.
drop view if exists scout.gold_payment_analysis;
create view scout.gold_payment_analysis as
select
    coalesce(payment_method, 'unknown') as payment_method,
    count(*) as transactions,
    coalesce(sum(peso_value), 0) as revenue,
    round(coalesce(sum(peso_value), 0) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * coalesce(sum(peso_value), 0) / nullif(sum(coalesce(sum(peso_value), 0)) over (), 0), 2)
        as revenue_percent
from scout.silver_transactions
where status is distinct from 'void'
group by coalesce(payment_method, 'unknown')
order by revenue desc, payment_method;
comment on view scout.gold_payment_analysis is
    'How customers pay. One row per payment method, `unknown` where the till gave none. Pesos and percent of all
     sales and of revenue; voided sales excluded.';
