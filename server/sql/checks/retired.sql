-- What was retired is in both production tables, and came back to neither as a second row.
select retired.device_id, retired.epoch, seq
from scout_bronze.retired
cross join lateral unnest(retired.seqs) as run
cross join lateral generate_series(lower(run), upper(run) - 1) as seq
left join scout.bronze_edge_raw as edge using (device_id, epoch, seq)
left join scout.bronze_transactions_raw as transactions using (device_id, epoch, seq)
where edge.record_id is null or transactions.record_id is null
union all
select retired.device_id, null, null
from scout_bronze.retired_identities as retired
left join scout.bronze_edge_raw as edge using (device_id, identity)
left join scout.bronze_transactions_raw as transactions using (device_id, identity)
where edge.identity is null or transactions.identity is null
union all
select device_id, epoch, seq
from scout.bronze_transactions_raw
where record_id is not null
group by device_id, epoch, seq, record_id
having count(*) > 1
union all
select device_id, null, null
from scout.bronze_transactions_raw
where identity is not null
group by device_id, identity
having count(*) > 1
