-- known -- one row when this device is known
select device_id from scout_edge.devices where device_id = %(device_id)s

-- revoke_device -- from now on no token lets it in; one row when that is news
update scout_edge.devices set revoked_at = %(now)s
where device_id = %(device_id)s and revoked_at is null
returning device_id

-- restore_device -- its tokens count again; one row when it was revoked
update scout_edge.devices set revoked_at = null
where device_id = %(device_id)s and revoked_at is not null
returning device_id

-- outdate_tokens -- tokens issued so far count no longer, also those that begin with the second of the last such time
update scout_edge.devices
set tokens_valid_from = greatest(%(valid_from)s, tokens_valid_from + interval '1 second')
where device_id = any (%(device_ids)s)
