-- claim -- epochs to look at now: those of which a repair is due, and those not looked at for long
with due as (
    (
        select device_id, epoch
        from scout_bronze.repairs
        where next_at <= now()
        order by next_at
        limit %(heads_max)s
    )
    union
    (
        select device_id, epoch
        from scout_edge.heads
        where checked_at <= now() - %(check_s)s * interval '1 second'
        order by checked_at
        limit %(heads_max)s
    )
),
locked as (
    select heads.device_id, heads.epoch
    from scout_edge.heads
    join due using (device_id, epoch)
    order by heads.device_id, heads.epoch
    for update of heads skip locked
)
update scout_edge.heads
set checked_at = now()
from locked
where heads.device_id = locked.device_id and heads.epoch = locked.epoch
returning heads.device_id, heads.epoch

-- missing -- what of these epochs nobody holds: all of it, and without what the devices themselves lost
select device_id, epoch, (missing_seqs + lost_seqs)::text, missing_seqs::text
from unnest(%(device_id)s::text[], %(epoch)s::text[]) as claimed (device_id, epoch)
join scout_bronze.custody using (device_id, epoch)
where missing + lost > 0

-- move_again -- makes loads due once more by which production and silver get the rows that they lack of these epochs
with lacked as (
    select raw.load_id as load_id, edge.load_id as edge_load, production.load_id as production_load
    from unnest(%(device_id)s::text[], %(epoch)s::text[]) as claimed (device_id, epoch)
    join scout_bronze.transactions_raw as raw using (device_id, epoch)
    left join scout.bronze_edge_raw as edge using (raw_id)
    left join scout.bronze_transactions_raw as production using (raw_id)
    left join scout.silver_edge_events as event using (raw_id)
    where (edge.raw_id is null or production.raw_id is null or event.raw_id is null)
        and not exists (select from scout_bronze.loads where loads.load_id = raw.load_id)
)
insert into scout_bronze.loads (load_id, rows) overriding system value
select load.load_id, count(*)
-- A row that came back to bronze is still in production by the load that first brought it.
from lacked
cross join lateral unnest(array[lacked.load_id, edge_load, production_load]) as load (load_id)
where load.load_id is not null
group by load.load_id
order by load.load_id
on conflict (load_id) do nothing

-- forget -- repairs of epochs of which nothing is missing any more
delete from scout_bronze.repairs
using unnest(%(device_id)s::text[], %(epoch)s::text[]) as whole (device_id, epoch)
where repairs.device_id = whole.device_id and repairs.epoch = whole.epoch

-- begin_try -- counts a try, unless the last one was lately and nothing more is missing; waits twice as long each time
insert into scout_bronze.repairs as known (device_id, epoch, seqs, tries, tried_at, next_at)
values (
    %(device_id)s, %(epoch)s, %(seqs)s::int8multirange, 1, now(), now() + %(wait_s)s * interval '1 second'
)
on conflict (device_id, epoch) do update
set seqs = excluded.seqs,
    tries = case when known.seqs @> excluded.seqs then known.tries + 1 else 1 end,
    asked = case when known.seqs @> excluded.seqs then known.asked else 0 end,
    tried_at = now(),
    next_at = now() + least(
        interval '30 days',
        %(wait_s)s * interval '1 second'
            * case when known.seqs @> excluded.seqs then 2 ^ least(known.tries, 30) else 1 end
    )
where known.next_at <= now() or not known.seqs @> excluded.seqs
returning tries, asked

-- reload -- lets the loader take the objects again that hold these seqs
update scout_bronze.files
set state = 'found', tries = 0, retry_at = null
where device_id = %(device_id)s
    and epoch = %(epoch)s
    and bucket = %(bucket)s
    and state = 'loaded'
    and first_seq < upper(%(seqs)s::int8multirange)
    and last_seq >= lower(%(seqs)s::int8multirange)
    and int8range(first_seq, last_seq, '[]') && %(seqs)s::int8multirange

-- renounce -- what can't be loaded again covers nothing: posts, and objects of another bucket
update scout_bronze.files as files
set state = 'gone'
where device_id = %(device_id)s
    and epoch = %(epoch)s
    and state = 'loaded'
    and first_seq < upper(%(seqs)s::int8multirange)
    and last_seq >= lower(%(seqs)s::int8multirange)
    and int8range(first_seq, last_seq, '[]') && %(seqs)s::int8multirange
    and not exists (
        select from scout_bronze.files as other where other.batch = files.batch and other.state = 'found'
    )

-- ask_anew -- asks the device about all it keeps, where a seq lies in no object that waits, unless it was just asked
insert into scout_edge.asked_anew as known (device_id, times, asked_at)
select heartbeats.device_id, 1, now()
from scout_edge.heartbeats
where heartbeats.device_id = %(device_id)s
    and heartbeats.report ->> 'generation' = scout_edge.generation_for(%(device_id)s)
    and not %(seqs)s::int8multirange <@ (
        select coalesce(range_agg(int8range(first_seq, last_seq, '[]')), '{}')
        from scout_bronze.files
        where device_id = %(device_id)s and epoch = %(epoch)s and state = 'found'
    )
on conflict (device_id) do update
set times = known.times + 1, asked_at = now()

-- count_asked -- so that it ends
update scout_bronze.repairs set asked = asked + 1 where device_id = %(device_id)s and epoch = %(epoch)s
