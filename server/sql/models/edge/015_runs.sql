-- The runs `[[first, last], …]` of a report as one multirange; null when any of them, or the head, is malformed.
create or replace function scout_edge.runs(runs jsonb, head jsonb)
returns int8multirange
language plpgsql
immutable
set search_path = ''
as $$
declare
    whole constant text := '^(0|[1-9][0-9]{0,11})$';  -- twelve digits are what an object's name has room for
    run jsonb;
    all_runs int8range[] := '{}';
begin
    if coalesce(jsonb_typeof(head) <> 'number' or head::text !~ whole, true)
        or coalesce(jsonb_typeof(runs) <> 'array', true)
    then
        return null;
    end if;
    for run in select value from jsonb_array_elements(runs)
    loop
        if jsonb_typeof(run) <> 'array' or jsonb_array_length(run) <> 2
            or (run -> 0)::text !~ whole or (run -> 1)::text !~ whole
        then
            return null;
        end if;
        if not (1 <= (run -> 0)::bigint and (run -> 0)::bigint <= (run -> 1)::bigint
                and (run -> 1)::bigint <= head::bigint) then
            return null;
        end if;
        all_runs := all_runs || int8range((run -> 0)::bigint, (run -> 1)::bigint, '[]');
    end loop;
    return int8multirange(variadic all_runs);
end
$$;
revoke all on function scout_edge.runs(jsonb, jsonb) from public;
