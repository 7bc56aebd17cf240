-- Grain: one row per way of asking and kind of request.
drop view if exists scout.gold_request_behavior;
create view scout.gold_request_behavior as
select
    coalesce(request_mode, 'unknown') as request_mode,
    coalesce(request_type, 'unknown') as request_type,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    count(*) filter (where suggestion_offered) as suggestions_offered,
    count(*) filter (where suggestion_accepted) as suggestions_accepted,
    round(100.0 * count(*) filter (where suggestion_accepted) / nullif(count(suggestion_accepted), 0), 2)
        as acceptance_percent
from scout.silver_sales
group by coalesce(request_mode, 'unknown'), coalesce(request_type, 'unknown')
order by transactions desc, request_mode, request_type;
comment on view scout.gold_request_behavior is
    'How customers ask, and whether they then take what is suggested. One row per request mode and request type,
     `unknown` where the till gave none. Pesos and percent; voided sales excluded.';
comment on column scout.gold_request_behavior.request_mode is
    'verbal, pointing or indirect; `unknown` where the till gave none.';
comment on column scout.gold_request_behavior.request_type is
    'branded, unbranded, point or indirect; `unknown` where the till gave none.';
comment on column scout.gold_request_behavior.transactions is 'Sales.';
comment on column scout.gold_request_behavior.revenue is 'What was paid, in pesos.';
comment on column scout.gold_request_behavior.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_request_behavior.transactions_percent is 'Of all sales.';
comment on column scout.gold_request_behavior.suggestions_offered is 'Sales in which the store suggested something.';
comment on column scout.gold_request_behavior.suggestions_accepted is
    'Sales in which the customer took what the store suggested.';
comment on column scout.gold_request_behavior.acceptance_percent is
    'Accepted, of the sales that say whether; null where none does.';
