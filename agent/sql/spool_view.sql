-- Queries of agent/spool_view.py. Each costs about the same however many records there are.

-- version -- the spool's shape
pragma user_version;

-- oldest_unsent -- the first record that nobody but this device holds
select captured_at, line
from records
where place >= (
    select min(place) from (
        select min(epoch_number * 1000000000000 + first_seq) as place
        from batches
        where state <> 'settled' and state <> 'accepted'
        union all
        select min(number * 1000000000000 + sealed_to + 1) from epochs where head > sealed_to
    )
)
order by place
limit 1;

-- place_since -- where the records since a moment begin: bisection over the primary key. Places have wide holes
-- between epochs; each look takes the next record there is. The middle is low + (high - low) / 2, for a salvaged
-- epoch's places are below 0, where division rounds up, and a middle that is `high` would never end this.
with recursive bisection (low, high) as (
    select (select min(place) from records), (select max(place) + 1 from records)
    union all
    select
        iif(
            (select captured_at from records where place >= low + (high - low) / 2 order by place limit 1) < :since,
            low + (high - low) / 2 + 1,
            low
        ),
        iif(
            (select captured_at from records where place >= low + (high - low) / 2 order by place limit 1) < :since,
            high,
            low + (high - low) / 2
        )
    from bisection
    where low < high
)
select min(place) from records where place >= (select low from bisection where low = high);

-- rows_from -- how many records were taken from that place on: seqs have no holes
select coalesce(sum(iif(number = :epoch_number, head - :seq + 1, head)), 0)
from epochs
where number >= :epoch_number;

-- bytes_per_row -- what a record takes up, by the newest ones
select avg(length(cast(line as blob))) from (select line from records order by place desc limit 100);

-- quick_check -- "ok", or the first thing that is wrong
pragma quick_check(1);

-- statistics -- how much there is of what
select 'epochs' as name, count(*) as value from epochs
union all
select 'batches ' || state, count(*) from batches group by state
union all
select 'rows ' || state, sum(last_seq - first_seq + 1) from batches group by state
union all
select 'bytes ' || state, sum(bytes) from batches group by state
union all
select 'batches refused', count(*) from batches where refusals > 0
union all
select 'batches asked for again', count(*) from batches where resend > 0
union all
select 'rows unsealed', coalesce(sum(head - sealed_to), 0) from epochs
union all
select 'page_size', page_size from pragma_page_size
union all
select 'page_count', page_count from pragma_page_count
union all
select 'free pages', freelist_count from pragma_freelist_count;
