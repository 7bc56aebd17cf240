-- Grain: one row per answer to whether a campaign influenced the sale.
drop view if exists scout.gold_campaign_effect;
create view scout.gold_campaign_effect as
select
    case when campaign_influenced then 'influenced' when not campaign_influenced then 'not influenced' else 'unknown' end
        as campaign,
    count(*) as transactions,
    sum(revenue) as revenue,
    round(sum(revenue) / count(*), 2) as average_sale,
    round(avg(units_per_transaction), 2) as average_units,
    round(avg(basket_size), 2) as average_basket_size,
    round(100.0 * count(*) / sum(count(*)) over (), 2) as transactions_percent,
    round(100 * sum(revenue) / nullif(sum(sum(revenue)) over (), 0), 2) as revenue_percent
from scout.silver_sales
group by campaign
order by campaign;
comment on view scout.gold_campaign_effect is
    'Whether campaigns make customers buy more. One row per answer of the till: influenced, not influenced, unknown.
     Pesos and percent; voided sales excluded.';
comment on column scout.gold_campaign_effect.campaign is
    'influenced or not influenced; `unknown` where the till didn''t say.';
comment on column scout.gold_campaign_effect.transactions is 'Sales.';
comment on column scout.gold_campaign_effect.revenue is 'What was paid, in pesos.';
comment on column scout.gold_campaign_effect.average_sale is 'Revenue of a sale, in pesos to the centavo.';
comment on column scout.gold_campaign_effect.average_units is 'Units of a sale, of the sales that say; to 2 places.';
comment on column scout.gold_campaign_effect.average_basket_size is
    'Different things in a sale, of the sales that say; to 2 places.';
comment on column scout.gold_campaign_effect.transactions_percent is 'Of all sales.';
comment on column scout.gold_campaign_effect.revenue_percent is 'Of the revenue of all sales.';
