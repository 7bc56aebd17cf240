-- Why a token whose signature and expiry are good opens nothing any more; null where it does.
-- The one rule for bucket, ingest endpoint and heartbeat. A jti that no row knows is no refusal: after a
-- restore from a backup, the tokens issued since are still good ones.
create or replace function scout_edge.token_refusal(role text, subject text, issued_at bigint, jti text)
returns text
language sql
stable
set search_path = ''
as $$
    select case
        when exists (
            select from scout_edge.tokens
            where tokens.revoked_at is not null
              and tokens.jti = case when $4 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then $4::uuid end
        ) then 'token revoked'
        when $1 <> 'edge_uploader' then null
        else (
            select case
                when devices.device_id is null then 'device unknown'
                when devices.revoked_at is not null then 'device revoked'
                when to_timestamp($3) < devices.tokens_valid_from then 'token outdated'
            end
            from (values ($2)) as asked (device_id)
            left join scout_edge.devices using (device_id)
        )
    end
$$;
revoke all on function scout_edge.token_refusal(text, text, bigint, text) from public;
