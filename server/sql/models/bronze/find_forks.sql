-- Step of the ETL: seqs of these loads that carry more than one id. Each load is looked at after it committed,
-- so of two records at one seq the later one to be looked at sees the other, whichever committed first. Where the
-- other was retired, production has its id.
create or replace function scout_bronze.find_forks(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
begin
    with landed as materialized (
        select device_id, epoch, seq, id
        from scout_bronze.transactions_raw
        where load_id = any (loads) and epoch is not null
    ),
    -- Each limit keeps this one look into an index, however many rows there are.
    at_retired_seqs as materialized (
        select distinct landed.device_id, landed.epoch, landed.seq
        from (select distinct device_id, epoch from landed) as epochs
        cross join lateral (
            select retired.seqs
            from scout_bronze.retired
            where retired.device_id = epochs.device_id and retired.epoch = epochs.epoch
            limit 1
        ) as retired
        join landed using (device_id, epoch)
        where retired.seqs @> landed.seq
    ),
    in_production as materialized (
        select at_retired_seqs.*, production.record_id as id
        from at_retired_seqs
        cross join lateral (
            select record_id
            from scout.bronze_transactions_raw as moved
            where moved.epoch = at_retired_seqs.epoch
                and moved.seq = at_retired_seqs.seq
                and moved.record_id is not null
                and moved.device_id = at_retired_seqs.device_id
            offset 0
        ) as production
    ),
    forked as (
        select raw.device_id, raw.epoch, raw.seq
        from landed as raw
        where exists (
            select
            from scout_bronze.transactions_raw as other
            where other.device_id = raw.device_id
                and other.epoch = raw.epoch
                and other.seq = raw.seq
                and other.id <> raw.id
        )
        union
        select device_id, epoch, seq
        from in_production
        group by device_id, epoch, seq
        having count(distinct id) > 1
    ),
    known as (
        select device_id, epoch, seq, raw.id
        from forked
        join scout_bronze.transactions_raw as raw using (device_id, epoch, seq)
        union
        select device_id, epoch, seq, in_production.id
        from forked
        join in_production using (device_id, epoch, seq)
    ),
    claimed as (
        select
            known.*,
            -- An id begins with the time intake minted it: the lowest is the first.
            first_value(id) over (partition by device_id, epoch, seq order by id) as first_id
        from known
    )
    insert into scout_bronze.forks as listed (device_id, epoch, seq, id, first_id)
    select device_id, epoch, seq, id, first_id
    from claimed
    where id <> first_id
    on conflict (device_id, epoch, seq, id) do update
        set first_id = excluded.first_id
        where listed.first_id <> excluded.first_id;
end
$$;
comment on function scout_bronze.find_forks is
    'Lists in scout_bronze.forks each further id at one (device_id, epoch, seq) of these loads.';
