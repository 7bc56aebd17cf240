-- The two production tables hold the same rows.
select coalesce(edge.raw_id, transactions.raw_id) as raw_id
from scout.bronze_edge_raw as edge
full join scout.bronze_transactions_raw as transactions using (raw_id)
where edge.raw_id is null or transactions.raw_id is null
