-- Grain: one row per month with sales.
drop view if exists scout.gold_tbwa_client_share;
create view scout.gold_tbwa_client_share as
select
    month,
    count(*) as transactions,
    count(*) filter (where is_tbwa_client) as tbwa_transactions,
    sum(revenue) as revenue,
    coalesce(sum(revenue) filter (where is_tbwa_client), 0) as tbwa_revenue,
    round(100.0 * count(*) filter (where is_tbwa_client) / count(*), 2) as tbwa_transactions_percent,
    round(100 * coalesce(sum(revenue) filter (where is_tbwa_client), 0) / nullif(sum(revenue), 0), 2)
        as tbwa_revenue_percent
from scout.silver_sales
group by month
order by month;
comment on view scout.gold_tbwa_client_share is
    'What the brands of TBWA''s clients bring. One row per month where the store is; the month is null for sales whose
     time nobody knows. Pesos and percent; voided sales excluded.';
comment on column scout.gold_tbwa_client_share.month is 'Its first day; null for sales whose time nobody knows.';
comment on column scout.gold_tbwa_client_share.transactions is 'Sales.';
comment on column scout.gold_tbwa_client_share.tbwa_transactions is 'Sales of TBWA''s clients.';
comment on column scout.gold_tbwa_client_share.revenue is 'What was paid, in pesos.';
comment on column scout.gold_tbwa_client_share.tbwa_revenue is 'Revenue of these, in pesos.';
comment on column scout.gold_tbwa_client_share.tbwa_transactions_percent is 'Of the month''s sales.';
comment on column scout.gold_tbwa_client_share.tbwa_revenue_percent is 'Of the month''s revenue.';
