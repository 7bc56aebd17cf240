-- devices -- every device, or one, with what an operator asks about it
select
    devices.device_id,
    devices.source,
    devices.added_at,
    devices.revoked_at,
    devices.enrolled_at,
    nullif(devices.tokens_valid_from, '-infinity') as tokens_valid_from,
    newest.expires_at as token_expires_at,
    heartbeats.heard_at,
    heartbeats.report ->> 'version' as version,
    code.expires_at as code_expires_at
from scout_edge.devices
left join scout_edge.heartbeats using (device_id)
left join scout_edge.newest_tokens as newest using (device_id)
left join lateral (
    select max(enrolments.expires_at) as expires_at
    from scout_edge.enrolments
    where enrolments.device_id = devices.device_id
        and enrolments.used_at is null and enrolments.expires_at > %(now)s
) as code on true
where devices.device_id = %(device_id)s::text or %(device_id)s::text is null
order by devices.device_id

-- revoke_device -- from now on neither a token, a key nor a code lets it in; one row when that is news
update scout_edge.devices set revoked_at = %(now)s
where device_id = %(device_id)s and revoked_at is null
returning device_id

-- void_codes -- of this device, or of all
update scout_edge.enrolments set expires_at = %(now)s
where expires_at > %(now)s and (device_id = %(device_id)s::text or %(device_id)s::text is null)

-- restore_device -- its key and tokens count again; one row when it was revoked
update scout_edge.devices set revoked_at = null
where device_id = %(device_id)s and revoked_at is not null
returning device_id

-- add_code -- keeps the hash of a code that is about to be handed out
insert into scout_edge.enrolments (code_sha256, device_id, made_at, expires_at)
values (%(code_sha256)s, %(device_id)s, %(now)s, %(expires_at)s)

-- tokens -- every token that is remembered, newest first, with what speaks against it
select
    tokens.jti::text as jti,
    tokens.subject,
    tokens.role,
    tokens.issued_at,
    tokens.expires_at,
    case
        when tokens.revoked_at is not null then 'revoked'
        when tokens.expires_at <= %(now)s then 'expired'
        when tokens.role <> 'edge_uploader' then 'good'
        when devices.revoked_at is not null then 'device revoked'
        when tokens.issued_at < devices.tokens_valid_from then 'outdated'
        when tokens.issued_at < devices.renew_tokens_before then 'to be renewed'
        else 'good'
    end as state,
    devices.public_key is not null as renews_itself,
    heartbeats.heard_at
from scout_edge.tokens
left join scout_edge.devices on devices.device_id = tokens.subject and tokens.role = 'edge_uploader'
left join scout_edge.heartbeats on heartbeats.device_id = devices.device_id
where tokens.subject = %(subject)s::text or %(subject)s::text is null
order by tokens.subject, tokens.issued_at desc, tokens.expires_at desc

-- revoke_token -- by its id; one row when that is news
update scout_edge.tokens set revoked_at = %(now)s
where jti = %(jti)s and revoked_at is null
returning subject

-- token_known -- whether a token with this id was ever issued
select exists (select from scout_edge.tokens where jti = %(jti)s)

-- ask_for_renewal -- tokens issued before now still count, and these devices are asked to renew them
update scout_edge.devices set renew_tokens_before = %(now)s
where device_id = any (%(device_ids)s)

-- outdate_tokens -- tokens issued so far count no longer, also those that begin with the second of the last such time
update scout_edge.devices
set tokens_valid_from = greatest(%(valid_from)s, tokens_valid_from + interval '1 second')
where device_id = any (%(device_ids)s)

-- hold_renewals -- no token is issued by key or code until an operator has looked at the list of revoked devices
update scout_edge.settings set renewals_held_since = %(now)s

-- renewals_held_since -- since when they are held, or null
select renewals_held_since from scout_edge.settings

-- release_renewals -- the list of revoked devices was confirmed
update scout_edge.settings set renewals_held_since = null
