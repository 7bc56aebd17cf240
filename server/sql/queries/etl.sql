-- move_loads -- moves what is due, up to a bound; one row per target
select target, rows_read, rows_written, rows_already_there, rows_refused, extract(epoch from lag)::double precision
from scout_bronze.etl_to_production()

-- failed_loads -- the loads that this transaction tried and marked
select load_id, rows, error from scout_bronze.loads where tried_at >= now() order by load_id

-- has_due_loads -- whether another call would find work
select exists (select from scout_bronze.due_loads)

-- rebuild_gold -- makes gold's tables anew; one row per target, as move_loads
select target, rows_read, rows_written, rows_already_there, rows_refused, 0::double precision
from scout_gold.rebuild()

-- type_again -- makes every row of production due again; how many
select scout.type_again()
