-- Grain: one row per what was asked for, what was taken instead, and why.
drop view if exists scout.gold_substitution_flows;
create view scout.gold_substitution_flows as
with flow as (
    select
        coalesce(substitution.from_sku, 'unknown') as from_sku,
        coalesce(substitution.from_brand, asked.brand_name, 'unknown') as from_brand,
        coalesce(substitution.to_sku, 'unknown') as to_sku,
        coalesce(substitution.to_brand, taken.brand_name, 'unknown') as to_brand,
        coalesce(substitution.reason, 'unknown') as reason
    from scout.silver_sales as sale
    join scout.silver_substitutions as substitution using (source_id, transaction_key)
    left join scout.dim_sku as asked on asked.sku = substitution.from_sku
    left join scout.dim_sku as taken on taken.sku = substitution.to_sku
    where substitution.occurred
)
select
    from_sku,
    from_brand,
    to_sku,
    to_brand,
    reason,
    count(*) as substitutions,
    round(100.0 * count(*) / sum(count(*)) over (partition by from_sku, from_brand), 2) as from_percent
from flow
group by from_sku, from_brand, to_sku, to_brand, reason
order by substitutions desc, from_sku, from_brand, to_sku, to_brand, reason;
comment on view scout.gold_substitution_flows is
    'What customers take when they don''t get what they ask for. One row per sku and brand asked for, sku and brand
     taken, and reason, `unknown` where nobody named it. Counts of sales and percent; voided sales excluded.';
comment on column scout.gold_substitution_flows.from_sku is 'What was asked for; `unknown` where nobody named it.';
comment on column scout.gold_substitution_flows.from_brand is
    'As the till gave it with the substitution, else as scout.dim_sku describes the sku, else `unknown`.';
comment on column scout.gold_substitution_flows.to_sku is 'What was taken; `unknown` where nobody named it.';
comment on column scout.gold_substitution_flows.to_brand is 'Found as from_brand is.';
comment on column scout.gold_substitution_flows.reason is '`unknown` where the till gave none.';
comment on column scout.gold_substitution_flows.substitutions is 'Sales with this substitution.';
comment on column scout.gold_substitution_flows.from_percent is
    'Of all substitutions with the same from_sku and from_brand.';
