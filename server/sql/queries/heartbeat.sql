-- become_device -- what PostgREST does for a request: the token's role, for this transaction
set local role edge_uploader

-- claims -- and its claims, for this transaction
select set_config('request.jwt.claims', %(claims)s, true)

-- heartbeat -- the call home with the whole body as its argument
select public.heartbeat(%(report)s::jsonb)
