-- One row per load that the ETL should take now, the next one first. A load is a commit, or makes rows due again
-- (scout_bronze.find_rows_again says which). Ranges of rows come after what is new, which somebody waits for. A load
-- that failed waits an hour, so that it costs the others little, and is then tried again: what broke it may have been
-- mended.
drop view if exists scout_bronze.due_loads;
create view scout_bronze.due_loads as
select
    load_id,
    committed_at,
    rows,
    first_raw_id,
    row_number() over (order by error is not null, first_raw_id is not null, load_id) as place,
    sum(rows) over (order by error is not null, first_raw_id is not null, load_id) - rows as rows_before
from scout_bronze.loads
where error is null or tried_at < now() - interval '1 hour'
order by place;
comment on view scout_bronze.due_loads is
    'One row per load that the ETL should take now, in its order; rows_before are the rows of the loads ahead.';
