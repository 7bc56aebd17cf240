-- Grain: one row per dimension and value of it.
drop view if exists scout.gold_revenue_by_dim;
create view scout.gold_revenue_by_dim as
select
    said.dimension,
    coalesce(said.value, 'unknown') as value,
    count(*) as transactions,
    sum(sale.revenue) as revenue,
    round(sum(sale.revenue) / count(*), 2) as average_sale,
    round(100 * sum(sale.revenue) / nullif(sum(sum(sale.revenue)) over (partition by said.dimension), 0), 2)
        as revenue_percent
from scout.silver_sales as sale
cross join lateral (
    values
        ('store', sale.store_id),
        ('store_type', sale.store_type),
        ('region', sale.region),
        ('part_of_day', sale.part_of_day),
        ('weekday', sale.weekday::text),
        ('payment_method', sale.payment_method),
        ('gender', sale.gender),
        ('age_bracket', sale.age_bracket),
        ('customer_type', sale.customer_type),
        ('economic_class', sale.economic_class),
        ('request_mode', sale.request_mode),
        ('request_type', sale.request_type)
) as said (dimension, value)
group by said.dimension, coalesce(said.value, 'unknown')
order by dimension, revenue desc, value;
comment on view scout.gold_revenue_by_dim is
    'The revenue cut along each dimension in turn, for one chart with a choice. One row per dimension and value,
     `unknown` where the till gave none; the rows of a dimension together are the revenue of all sales. Pesos and
     percent; voided sales excluded.';
comment on column scout.gold_revenue_by_dim.dimension is
    'store, store_type, region, part_of_day, weekday, payment_method, gender, age_bracket, customer_type,
     economic_class, request_mode or request_type.';
comment on column scout.gold_revenue_by_dim.value is
    'A weekday is a digit, 1 is Monday and 7 Sunday; `unknown` where nobody named it.';
comment on column scout.gold_revenue_by_dim.transactions is 'Sales.';
comment on column scout.gold_revenue_by_dim.revenue is 'What was paid, in pesos.';
comment on column scout.gold_revenue_by_dim.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_revenue_by_dim.revenue_percent is 'Of the revenue of all sales.';
