-- Every landing row whose load was moved is in both production tables.
select raw.raw_id
from scout_bronze.transactions_raw as raw
left join scout.bronze_edge_raw as edge using (raw_id)
left join scout.bronze_transactions_raw as transactions using (raw_id)
where (edge.raw_id is null or transactions.raw_id is null)
    and not exists (select from scout_bronze.loads where loads.load_id = raw.load_id)
