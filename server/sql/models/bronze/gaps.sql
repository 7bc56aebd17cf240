-- Grain: one row per run of missing seqs of a device's epoch that share their reason.
-- Missing is what lies below the highest head ever reported and is neither held (raw, line quarantine,
-- retired) nor still answered for by the device, unless it says itself that it lost them. Proven from the rows themselves, never from the ledger.
-- The held seqs are looked up per head: a filter on device_id reads that device's index entries only.
create or replace view scout_bronze.gaps as
select
    heads.device_id,
    heads.epoch,
    lower(run) as first_seq,
    upper(run) - 1 as last_seq,
    upper(run) - lower(run) as seqs,
    is_lost as lost_on_device
from scout_edge.heads
left join scout_bronze.retired using (device_id, epoch)
cross join lateral (
    select coalesce(range_agg(int8range(seq, seq, '[]')), '{}') as seqs
    from (
        select seq
        from scout_bronze.transactions_raw
        where device_id = heads.device_id and epoch = heads.epoch
        union all
        select seq
        from scout_bronze.quarantine
        where kind = 'line' and device_id = heads.device_id and epoch = heads.epoch and seq is not null
    ) as held_row
) as held
cross join lateral (
    select int8multirange(int8range(1, heads.head, '[]')) - held.seqs - coalesce(retired.seqs, '{}') as seqs
) as not_held
cross join lateral (
    select unnest(not_held.seqs - heads.unsettled - heads.lost), false
    union all
    select unnest(not_held.seqs * heads.lost), true
) as missing (run, is_lost)
where heads.head >= 1;
comment on view scout_bronze.gaps is
    'Runs of seqs that a device once had and that are neither held here nor awaited from it. lost_on_device: the
     device itself reports that its card lost them; nobody else may have them.';
