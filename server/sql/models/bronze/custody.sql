-- Grain: one row per epoch of a device that ever reported a head above 0: where each seq up to the head is.
-- Each seq is in exactly one class, the first of these that has it: bronze, line quarantine, retired, unsettled on
-- the device (which may call what it lost unsettled too, where runs were merged to shorten its report), accepted as
-- lost, lost by the device's own word, missing. So the counts add up to the head.
-- A device answers for what it called unsettled for as long as it reports the epoch: it does so while its spool holds
-- anything of it. Where it has called home for an hour without, its card is another one. Not at once: a spool that was
-- moved aside is being salvaged meanwhile, and of two copies of a card each reports its own epochs.
-- The held seqs are looked up per head: a filter on device_id reads that device's index entries only. They are
-- counted as runs: what it costs follows the rows, never the heads that were claimed.
create or replace function scout_bronze.seqs_in(seqs int8multirange) returns bigint
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(sum(upper(run) - lower(run)), 0)::bigint from unnest($1) as run
$$;
comment on function scout_bronze.seqs_in is 'How many seqs these runs have.';

create or replace view scout_bronze.custody as
select
    heads.device_id,
    heads.epoch,
    heads.head,
    heads.last_heard_at,
    scout_bronze.seqs_in(bronze.seqs * upto.seqs) as bronze,
    scout_bronze.seqs_in(quarantined.seqs * upto.seqs - bronze.seqs) as quarantined,
    scout_bronze.seqs_in(retired.seqs * upto.seqs - bronze.seqs - quarantined.seqs) as retired,
    scout_bronze.seqs_in(not_held.seqs * (answered.seqs - heads.lost)) as unsettled,
    scout_bronze.seqs_in(nowhere.seqs * accepted.seqs) as accepted,
    scout_bronze.seqs_in(nowhere.seqs * heads.lost - accepted.seqs) as lost,
    scout_bronze.seqs_in(nowhere.seqs - heads.lost - accepted.seqs) as missing,
    scout_bronze.seqs_in(bronze.seqs + quarantined.seqs - upto.seqs) as above_head,
    nowhere.seqs * accepted.seqs as accepted_seqs,
    nowhere.seqs * heads.lost - accepted.seqs as lost_seqs,
    nowhere.seqs - heads.lost - accepted.seqs as missing_seqs,
    heads.lost as reported_lost
from scout_edge.heads
cross join lateral (
    select coalesce(range_agg(int8range(first_seq, last_seq, '[]')), '{}') as seqs
    from (
        select min(seq) as first_seq, max(seq) as last_seq
        from (
            select seq, seq - dense_rank() over (order by seq) as run
            from scout_bronze.transactions_raw
            where device_id = heads.device_id and epoch = heads.epoch
        ) as in_runs
        group by run
    ) as runs
) as bronze
cross join lateral (
    select coalesce(range_agg(int8range(seq, seq, '[]')), '{}') as seqs
    from scout_bronze.quarantine
    where kind = 'line' and device_id = heads.device_id and epoch = heads.epoch and seq is not null
) as quarantined
cross join lateral (
    select coalesce(range_agg(retired.seqs), '{}') as seqs
    from scout_bronze.retired
    where device_id = heads.device_id and epoch = heads.epoch
) as retired
cross join lateral (
    select coalesce(range_agg(accepted_gaps.seqs), '{}') as seqs
    from scout_bronze.accepted_gaps
    where device_id = heads.device_id and epoch = heads.epoch
) as accepted
cross join lateral (
    select int8multirange(int8range(1, heads.head, '[]')) as seqs
) as upto
cross join lateral (
    select upto.seqs - bronze.seqs - quarantined.seqs - retired.seqs as seqs
) as not_held
cross join lateral (
    select case
        when exists (
            select from scout_edge.heartbeats
            where heartbeats.device_id = heads.device_id
                and heartbeats.heard_at > heads.last_heard_at + interval '1 hour'
        ) then '{}'::int8multirange
        else heads.unsettled
    end as seqs
) as answered
cross join lateral (
    select not_held.seqs - (answered.seqs - heads.lost) as seqs
) as nowhere
where heads.head >= 1;
comment on view scout_bronze.custody is
    'Where each seq up to a device''s head is: bronze + quarantined + retired + unsettled + accepted + lost + missing
     = head. `lost`: the device itself reports that its card lost them. `missing`: nobody answers for them.
     `above_head`: held, though the device has not reported them yet.';
