-- A sale without a value, a store or an id says why.
select sale.raw_id, missing.field
from scout.silver_transactions as sale
cross join lateral (
    values
        ('transaction_id', sale.transaction_id is null),
        ('store_id', sale.store_id is null),
        ('peso_value', sale.peso_value is null)
) as missing (field, is_missing)
left join scout.silver_rejections as rejection
    on rejection.raw_id = sale.raw_id and rejection.field in (missing.field, 'payload')
where missing.is_missing and rejection.raw_id is null
