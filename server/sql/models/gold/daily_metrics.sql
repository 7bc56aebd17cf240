-- Grain: one row per business day with sales.
drop view if exists scout.gold_daily_metrics;
create view scout.gold_daily_metrics as
select
    business_day,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    coalesce(sum(units_per_transaction), 0) as units,
    count(distinct customer_id) as customers,
    count(distinct store_id) as stores,
    round(avg(duration_seconds), 1) as average_duration_seconds,
    count(*) filter (where campaign_influenced) as campaign_transactions,
    count(*) filter (where suggestion_accepted) as suggestions_accepted,
    count(*) filter (where substitution.occurred) as substitutions,
    count(*) filter (where is_tbwa_client) as tbwa_transactions
from scout.silver_sales
left join scout.silver_substitutions as substitution using (source_id, transaction_key)
group by business_day
order by business_day;
comment on view scout.gold_daily_metrics is
    'What each business day was like: sales, what moved them, and how long they took. One row per day where the store
     is; null for sales whose time nobody knows. Pesos, counts and seconds; voided sales excluded.';
comment on column scout.gold_daily_metrics.business_day is
    'Calendar day where the store is; null for sales whose time nobody knows.';
comment on column scout.gold_daily_metrics.transactions is 'Sales.';
comment on column scout.gold_daily_metrics.revenue is 'What was paid, in pesos.';
comment on column scout.gold_daily_metrics.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_daily_metrics.units is 'Units sold, as far as tills say.';
comment on column scout.gold_daily_metrics.customers is 'Different customers, of the sales that name one.';
comment on column scout.gold_daily_metrics.stores is 'Different stores, of the sales that name one.';
comment on column scout.gold_daily_metrics.average_duration_seconds is 'Of the sales that say; to 1 place.';
comment on column scout.gold_daily_metrics.campaign_transactions is 'Sales that a campaign influenced.';
comment on column scout.gold_daily_metrics.suggestions_accepted is
    'Sales in which the customer took what the store suggested.';
comment on column scout.gold_daily_metrics.substitutions is
    'Sales in which something else was taken than was asked for.';
comment on column scout.gold_daily_metrics.tbwa_transactions is 'Sales of TBWA''s clients.';
