-- Grain: one row per measure, and for `rejected_fields` one per field.
drop view if exists scout.gold_data_quality;
create view scout.gold_data_quality as
with sale as (
    select
        count(*) as current,
        count(*) filter (where status is distinct from 'void') as counting,
        count(*) filter (where status = 'void') as voided,
        count(*) filter (where status is distinct from 'void' and business_day is null) as without_time,
        count(*) filter (where status is distinct from 'void' and store_id is null) as without_store,
        count(*) filter (where status is distinct from 'void' and peso_value is null) as without_value
    from scout.silver_transactions
),
itemized as (
    select source_id, transaction_key, coalesce(sum(total_price), 0) as revenue
    from scout.silver_transaction_items
    group by source_id, transaction_key
),
basket as (
    select
        count(*) filter (where itemized.revenue is null) as without_items,
        count(*) filter (where itemized.revenue <> sale.revenue) as not_adding_up
    from scout.silver_sales as sale
    left join itemized using (source_id, transaction_key)
),
event as (
    select
        count(claimed_device_id) as claimed_other_device,
        count(*) filter (where not is_readable) as unreadable
    from scout.silver_edge_events
),
-- Two tills that count alike, or one that was given another device: nobody can tell whether it was one sale.
twice_seen as (
    select store_id, transaction_id
    from scout.silver_transactions
    where store_id is not null and transaction_id is not null
    group by store_id, transaction_id
    having count(distinct device_id) > 1
),
measured (place, measure, field, rows, is_of_sales) as (
    select measure.place, measure.measure, '', measure.rows, measure.is_of_sales
    from sale
    cross join basket
    cross join event
    cross join lateral (
        values
            (1, 'sales', sale.counting, true),
            (2, 'voided_sales', sale.voided, true),
            (3, 'earlier_versions', (select count(*) from scout.silver_transaction_versions), false),
            (4, 'sales_without_time', sale.without_time, true),
            (5, 'sales_without_store', sale.without_store, true),
            (6, 'sales_without_value', sale.without_value, true),
            (7, 'sales_without_items', basket.without_items, true),
            (8, 'sales_not_adding_up', basket.not_adding_up, true),
            (9, 'ids_from_two_devices', (select count(*) from twice_seen), false),
            (10, 'claimed_other_device', event.claimed_other_device, false),
            (11, 'unreadable_payloads', event.unreadable, false)
    ) as measure (place, measure, rows, is_of_sales)
    union all
    select 12, 'rejected_fields', field, count(*), false
    from scout.silver_rejections
    group by field
)
select
    measure,
    field,
    rows,
    case when is_of_sales then round(100.0 * rows / nullif(sale.current, 0), 2) end as percent
from measured
cross join sale
order by place, rows desc, field;
comment on view scout.gold_data_quality is
    'How far the numbers can be trusted. One row per measure, and of rejected_fields one per field. Counts, and percent
     of all current sales; sales_… leave voided sales out.';
comment on column scout.gold_data_quality.measure is
    'sales: that count; voided_sales; earlier_versions: of sales that were corrected since; sales_without_time, _store,
     _value, _items: what their till didn''t say; sales_not_adding_up: whose items'' sum isn''t their value;
     ids_from_two_devices: transaction ids that more than one device of a store gave to a sale, voided ones included;
     claimed_other_device: events that name another device than the one that delivered them; unreadable_payloads:
     events that are no JSON object; rejected_fields: what silver could not type.';
comment on column scout.gold_data_quality.field is 'Of rejected_fields, which one; else empty.';
comment on column scout.gold_data_quality.rows is 'How many.';
comment on column scout.gold_data_quality.percent is
    'Of all current sales, voided ones included; null where the measure doesn''t count sales.';
