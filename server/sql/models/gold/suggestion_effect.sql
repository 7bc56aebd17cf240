-- Grain: one row per answer to whether the customer took what was suggested.
drop view if exists scout.gold_suggestion_effect;
create view scout.gold_suggestion_effect as
select
    case when suggestion_accepted then 'accepted' when not suggestion_accepted then 'declined' else 'unknown' end
        as suggestion,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(avg(units_per_transaction), 2) as average_units,
    round(avg(basket_size), 2) as average_basket_size,
    round(avg(duration_seconds), 1) as average_duration_seconds
from scout.silver_sales
group by suggestion
order by suggestion;
comment on view scout.gold_suggestion_effect is
    'What a suggestion of the store brings. One row per answer of the till: accepted, declined, unknown. Pesos;
     voided sales excluded.';
comment on column scout.gold_suggestion_effect.suggestion is
    'accepted or declined; `unknown` where the till didn''t say.';
comment on column scout.gold_suggestion_effect.transactions is 'Sales.';
comment on column scout.gold_suggestion_effect.revenue is 'What was paid, in pesos.';
comment on column scout.gold_suggestion_effect.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_suggestion_effect.average_units is
    'Units of a sale, of the sales that say; to 2 places.';
comment on column scout.gold_suggestion_effect.average_basket_size is
    'Different things in a sale, of the sales that say; to 2 places.';
comment on column scout.gold_suggestion_effect.average_duration_seconds is 'Of the sales that say; to 1 place.';
