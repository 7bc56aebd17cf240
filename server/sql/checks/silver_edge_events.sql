-- One row per row of scout.bronze_edge_raw.
select coalesce(bronze.raw_id, event.raw_id) as raw_id
from scout.bronze_edge_raw as bronze
full join scout.silver_edge_events as event using (raw_id)
where bronze.raw_id is null or event.raw_id is null
