-- settings -- since when tokens are held back, or null
select renewals_held_since from scout_edge.settings

-- device -- its key, and whether it may come in; kept from changing until this transaction ends, its calls home are not
select public_key, revoked_at from scout_edge.devices where device_id = %(device_id)s for no key update

-- enrolment -- the code with this hash, if it is good still; no second request uses it at the same time
select device_id, used_at, public_key, made_at
from scout_edge.enrolments
where code_sha256 = %(code_sha256)s and expires_at > %(now)s
for update

-- use_code -- the code now serves this key alone
update scout_edge.enrolments set used_at = %(now)s, public_key = %(public_key)s where code_sha256 = %(code_sha256)s

-- let_in -- another key: what the device had before counts no longer, a revocation included, nor do tokens of this second
update scout_edge.devices
set
    public_key = %(public_key)s,
    enrolled_at = %(now)s,
    revoked_at = null,
    tokens_valid_from = greatest(%(valid_from)s, tokens_valid_from + interval '1 second')
where device_id = %(device_id)s

-- use_nonce -- one row when it was not used before
insert into scout_edge.used_nonces (nonce, expires_at) values (%(nonce)s, %(expires_at)s)
on conflict do nothing
returning nonce

-- forget_nonces -- those that expired prove nothing any more
delete from scout_edge.used_nonces where expires_at < %(now)s
