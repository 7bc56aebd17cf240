-- What a device says of itself, as values that can't fail: a report is the device's own, whatever it holds.

-- A count: 0 or more, and never too large to be added up; null for anything that is no number.
create or replace function scout_edge.reported_count(value jsonb)
returns bigint
language sql
immutable
parallel safe
set search_path = ''
return case
    when jsonb_typeof(value) = 'number' then trunc(least(greatest(value::numeric, 0), 1000000000000))::bigint
end;
revoke all on function scout_edge.reported_count(jsonb) from public;
comment on function scout_edge.reported_count is
    'A count of a report, within 0 and 10^12, so that 5,000 of them can be added up; null when it is no number.';

-- A short text: null for anything else.
create or replace function scout_edge.reported_text(value jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
return case when jsonb_typeof(value) = 'string' then left(value #>> '{}', 64) end;
revoke all on function scout_edge.reported_text(jsonb) from public;
comment on function scout_edge.reported_text is
    'The first 64 characters of a text of a report; null when it is none. They may be any characters.';
