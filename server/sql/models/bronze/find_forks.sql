-- Step of the ETL: seqs of these loads that carry more than one id. Each load is looked at after it committed,
-- so of two records at one seq the later one to be looked at sees the other, whichever committed first.
create or replace function scout_bronze.find_forks(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
begin
    with forked as (
        select distinct raw.device_id, raw.epoch, raw.seq
        from scout_bronze.transactions_raw as raw
        where raw.load_id = any (loads)
            and exists (
                select
                from scout_bronze.transactions_raw as other
                where other.device_id = raw.device_id
                    and other.epoch = raw.epoch
                    and other.seq = raw.seq
                    and other.id <> raw.id
            )
    ),
    claimed as (
        select
            raw.device_id,
            raw.epoch,
            raw.seq,
            raw.id,
            -- An id begins with the time intake minted it: the lowest is the first.
            first_value(raw.id) over (partition by raw.device_id, raw.epoch, raw.seq order by raw.id) as first_id
        from forked
        join scout_bronze.transactions_raw as raw using (device_id, epoch, seq)
    )
    insert into scout_bronze.forks as known (device_id, epoch, seq, id, first_id)
    select device_id, epoch, seq, id, first_id
    from claimed
    where id <> first_id
    on conflict (device_id, epoch, seq, id) do update
        set first_id = excluded.first_id
        where known.first_id <> excluded.first_id;
end
$$;
comment on function scout_bronze.find_forks is
    'Lists in scout_bronze.forks each further id at one (device_id, epoch, seq) of these loads.';
