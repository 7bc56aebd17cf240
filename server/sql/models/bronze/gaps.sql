-- Grain: one row per run of missing seqs of a device's epoch that share their reason.
-- Missing is what lies below the highest head ever reported and is neither held (raw, line quarantine, retired) nor
-- still answered for by the device, unless it says itself that it lost them. Proven from the rows, never from the
-- ledger.
create or replace view scout_bronze.gaps as
select
    custody.device_id,
    custody.epoch,
    lower(run) as first_seq,
    upper(run) - 1 as last_seq,
    upper(run) - lower(run) as seqs,
    is_lost as lost_on_device,
    why,
    accepted_at
from scout_bronze.custody
cross join lateral (
    select unnest(missing_seqs), false, null::text, null::timestamptz
    union all
    select unnest(lost_seqs), true, null, null
    union all
    select unnest(accepted_gaps.seqs * accepted_seqs - reported_lost), false, accepted_gaps.why, accepted_gaps.accepted_at
    from scout_bronze.accepted_gaps
    where accepted_gaps.device_id = custody.device_id and accepted_gaps.epoch = custody.epoch
    union all
    select unnest(accepted_gaps.seqs * accepted_seqs * reported_lost), true, accepted_gaps.why, accepted_gaps.accepted_at
    from scout_bronze.accepted_gaps
    where accepted_gaps.device_id = custody.device_id and accepted_gaps.epoch = custody.epoch
) as missing (run, is_lost, why, accepted_at);
comment on view scout_bronze.gaps is
    'Runs of seqs that a device once had and that are neither held here nor awaited from it. lost_on_device: the
     device itself reports that its card lost them; nobody else may have them. `why`: an operator accepted it.';
