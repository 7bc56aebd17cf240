-- Grain: one row per gender and age bracket.
drop view if exists scout.gold_demographics;
create view scout.gold_demographics as
select
    coalesce(gender, 'unknown') as gender,
    coalesce(age_bracket, 'unknown') as age_bracket,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    count(distinct customer_id) as customers,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent
from scout.silver_sales
group by coalesce(gender, 'unknown'), coalesce(age_bracket, 'unknown')
order by gender, age_bracket;
comment on view scout.gold_demographics is
    'Who buys, as the till saw it. One row per gender and age bracket, `unknown` where the till gave none. Pesos and
     percent; voided sales excluded.';
comment on column scout.gold_demographics.gender is '`unknown` where the till gave none.';
comment on column scout.gold_demographics.age_bracket is 'Years; `unknown` where the till gave none.';
comment on column scout.gold_demographics.transactions is 'Sales.';
comment on column scout.gold_demographics.revenue is 'What was paid, in pesos.';
comment on column scout.gold_demographics.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_demographics.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_demographics.transactions_percent is 'Of all sales.';
comment on column scout.gold_demographics.revenue_percent is 'Of the revenue of all sales.';
