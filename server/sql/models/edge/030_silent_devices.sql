-- Grain: one row per device that should have spoken and did not.
-- It has called home before, is not revoked, and its silence is longer than scout_edge.settings.silent_after_h and
-- than any that it kept within the fourteen days before: a shop that is offline every weekend is no news.
create or replace view scout_edge.silent_devices as
select
    heartbeats.device_id,
    heartbeats.heard_at,
    now() - heartbeats.heard_at as silent_for,
    usual.pause as usual_pause
from scout_edge.heartbeats
join scout_edge.devices using (device_id)
cross join scout_edge.settings
cross join lateral (
    select coalesce(max(heard_at - heard_before), interval '0') as pause
    from (
        select heard_at, lag(heard_at) over (order by hour) as heard_before
        from scout_edge.heartbeat_history
        where heartbeat_history.device_id = heartbeats.device_id
            and heartbeat_history.hour >= heartbeats.heard_at - interval '14 days'
    ) as hours
) as usual
where devices.revoked_at is null
    and heartbeats.heard_at < now() - make_interval(hours => settings.silent_after_h)
    and heartbeats.heard_at < now() - usual.pause;
comment on view scout_edge.silent_devices is
    'Devices that should have called home by now: silent for longer than scout_edge.settings.silent_after_h and than
     ever in the two weeks before.';
