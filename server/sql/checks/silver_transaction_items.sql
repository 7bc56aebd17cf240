-- Every item belongs to the latest version of a sale and has its time, and lines are numbered without holes.
select source_id, transaction_key
from scout.silver_transaction_items as item
left join scout.silver_transactions as sale using (source_id, transaction_key)
group by source_id, transaction_key, sale.raw_id, sale.sold_at
having sale.raw_id is null
    or min(item.raw_id) <> sale.raw_id
    or max(item.raw_id) <> sale.raw_id
    or max(item.line_number) <> count(*)
    or bool_or(item.sold_at is distinct from sale.sold_at)
