-- Grain: one row per device that has a token which counts: not revoked, nor issued before the device's tokens count.
create or replace view scout_edge.newest_tokens as
select devices.device_id, max(tokens.expires_at) as expires_at
from scout_edge.devices
join scout_edge.tokens
    on tokens.subject = devices.device_id
    and tokens.role = 'edge_uploader'
    and tokens.revoked_at is null
    and tokens.issued_at >= devices.tokens_valid_from
group by devices.device_id;
comment on view scout_edge.newest_tokens is
    'When the last of a device''s tokens that count expires; that may have been.';
