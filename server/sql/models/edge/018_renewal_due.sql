-- Whether a device with these claims should renew its token: its last half has begun, or an operator asked for it.
-- Never of a device that can't renew by itself, nor while renewals are held.
create or replace function scout_edge.renewal_due(claims jsonb)
returns boolean
language sql
stable
set search_path = ''
as $$
    select coalesce(
        (
            select
                devices.public_key is not null
                and settings.renewals_held_since is null
                and (
                    to_timestamp(($1 ->> 'iat')::float8) < devices.renew_tokens_before
                    or clock_timestamp() > to_timestamp((($1 ->> 'iat')::float8 + ($1 ->> 'exp')::float8) / 2)
                )
            from scout_edge.devices
            cross join scout_edge.settings
            where devices.device_id = $1 ->> 'sub'
        ),
        false
    )
$$;
revoke all on function scout_edge.renewal_due(jsonb) from public;
