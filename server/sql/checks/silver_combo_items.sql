-- Every line belongs to the latest version of a sale, and lines are numbered without holes.
select source_id, transaction_key
from scout.silver_combo_items as line
left join scout.silver_transactions as sale using (source_id, transaction_key)
group by source_id, transaction_key, sale.raw_id
having sale.raw_id is null
    or min(line.raw_id) <> sale.raw_id
    or max(line.raw_id) <> sale.raw_id
    or max(line.line_number) <> count(*)
