-- Grain: one row per economic class.
drop view if exists scout.gold_economic_class;
create view scout.gold_economic_class as
select
    coalesce(economic_class, 'unknown') as economic_class,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct customer_id) as customers,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent
from scout.silver_sales
group by coalesce(economic_class, 'unknown')
order by revenue desc, economic_class;
comment on view scout.gold_economic_class is
    'What customers of each economic class buy for. One row per class, `unknown` where the till gave none. Pesos and
     percent; voided sales excluded.';
comment on column scout.gold_economic_class.economic_class is 'A to E; `unknown` where the till gave none.';
comment on column scout.gold_economic_class.transactions is 'Sales.';
comment on column scout.gold_economic_class.revenue is 'What was paid, in pesos.';
comment on column scout.gold_economic_class.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_economic_class.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_economic_class.transactions_percent is 'Of all sales.';
comment on column scout.gold_economic_class.revenue_percent is 'Of the revenue of all sales.';
