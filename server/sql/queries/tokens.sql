-- add_device -- makes a device known; one row when it was not known before
insert into scout_edge.devices (device_id, source)
values (%(device_id)s, %(device_id)s)
on conflict do nothing
returning device_id

-- device -- whether tokens may be issued to this device, and from which second on they count
select revoked_at, nullif(tokens_valid_from, '-infinity') as tokens_valid_from
from scout_edge.devices
where device_id = %(device_id)s

-- any_device -- whether this database knows any device
select exists (select from scout_edge.devices)

-- record -- keeps the id of a token that is about to be handed out
insert into scout_edge.tokens (jti, subject, role, issued_at, expires_at)
values (%(jti)s, %(subject)s, %(role)s, to_timestamp(%(issued_at)s), to_timestamp(%(expires_at)s))

-- refusal -- why a signed, unexpired token opens nothing any more, or null
select scout_edge.token_refusal(%(role)s, %(subject)s, %(issued_at)s, %(jti)s)
