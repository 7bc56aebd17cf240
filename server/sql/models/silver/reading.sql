-- How what a till said becomes a typed value: one function a kind, null where it can't be read.
-- The plain SQL ones are written to be inlined; give them columns, not expressions:
-- an argument that is used twice would otherwise keep them from it.

create or replace function scout.store_zone() returns text
language sql immutable parallel safe
return 'Asia/Manila';
comment on function scout.store_zone is 'Time zone of a store that scout.dim_store doesn''t know yet.';

drop function if exists scout.business_day(timestamptz);
create or replace function scout.business_day(at timestamptz, zone text) returns date
language sql stable parallel safe
return (at at time zone zone)::date;
comment on function scout.business_day is 'Calendar day of a moment, where the store is.';

drop function if exists scout.business_hour(timestamptz);
create or replace function scout.business_hour(at timestamptz, zone text) returns smallint
language sql stable parallel safe
return extract(hour from at at time zone zone)::smallint;
comment on function scout.business_hour is 'Hour of the day (0 to 23) of a moment, where the store is.';

drop function if exists scout.part(jsonb, text);
create or replace function scout.said_text(said jsonb) returns text
language sql immutable parallel safe
return case
    when jsonb_typeof(said) in ('string', 'number') then nullif(btrim(said #>> '{}', E' \t\r\n'), '')
end;
comment on function scout.said_text is
    'A string or number as text without blanks around it; null where nothing is left.';

create or replace function scout.written_number(written text) returns numeric
language sql immutable parallel safe
return case
    when written ~ '^[+-]?(([0-9]{1,18}|[0-9]{1,3}(,[0-9]{3}){1,5})([.][0-9]{0,18})?|[.][0-9]{1,18})$'
    then replace(written, ',', '')::numeric
end;
comment on function scout.written_number is
    'Digits with a point, a sign and commas between thousands, as a number; null for anything else.';

create or replace function scout.said_number(said jsonb) returns numeric
language sql immutable parallel safe
return case jsonb_typeof(said)
    when 'number' then said::numeric
    when 'string' then scout.written_number(btrim(said #>> '{}', E' \t\r\n'))
end;
comment on function scout.said_number is 'A number, or one that is written in a string: "1,250.00".';

create or replace function scout.said_amount(said jsonb) returns numeric
language sql immutable parallel safe
return case jsonb_typeof(said)
    when 'number' then said::numeric
    when 'string' then scout.written_number(
        regexp_replace(btrim(said #>> '{}', E' \t\r\n'), '^([+-]?)(₱|PHP) *', '\1', 'i')
    )
end;
comment on function scout.said_amount is
    'As scout.said_number, also behind the sign of the peso: "₱1,250.00", "PHP 5".';

create or replace function scout.said_boolean(said jsonb) returns boolean
language sql immutable parallel safe
return case lower(btrim(said #>> '{}', E' \t\r\n'))
    when 'true' then true
    when '1' then true
    when 'false' then false
    when '0' then false
end;
comment on function scout.said_boolean is 'true or false, also as text, or as 1 or 0.';

create or replace function scout.within(number numeric, magnitude numeric, places integer) returns numeric
language sql immutable parallel safe
return case when abs(number) < magnitude then round(number, places) end;
comment on function scout.within is 'The number to so many places; null from the given magnitude on.';

create or replace function scout.whole(number numeric) returns integer
language sql immutable parallel safe
return case when abs(number) < 2147483648 and number = trunc(number) then number::integer end;
comment on function scout.whole is 'The number as an integer; null where it isn''t whole.';

create or replace function scout.said_count(said jsonb) returns integer
language plpgsql immutable parallel safe
as $$
declare
    number constant numeric := scout.said_number(said);
begin
    return case when number between 0 and 2147483647 and number = trunc(number) then number::integer end;
end
$$;
comment on function scout.said_count is 'A whole number from 0; null for anything else.';

create or replace function scout.said_instant(said jsonb, zone text) returns timestamptz
language plpgsql stable parallel safe
as $$
declare
    written constant text := btrim(said #>> '{}', E' \t\r\n');
    seconds numeric;
begin
    if written ~ '^[0-9]{9,13}([.][0-9]{1,9})?$' then
        seconds := written::numeric;
        -- Sales are made between 2000 and 2100. Milliseconds of that time are a thousand times too many seconds.
        if seconds >= 1e11 then
            seconds := seconds / 1000;
        end if;
        return case when seconds >= 946684800 and seconds < 4102444800 then to_timestamp(seconds::double precision) end;
    end if;
    -- Words that PostgreSQL would take for a time ('now', 'yesterday') would make silver depend on the clock.
    if written !~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?'
        '( ?([Zz]|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?))?$')
    then
        return null;
    end if;
    if written ~ '([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$' then
        return written::timestamptz;
    end if;
    return written::timestamp at time zone zone;
exception
    when data_exception then return null;  -- such as a 30th of February
end
$$;
comment on function scout.said_instant is
    'An ISO 8601 time with date and at least minutes (where it names no offset, in the zone given), or the seconds or
     milliseconds since 1970 of a time from 2000 to 2099.';

create or replace function scout.corrected_at(
    captured_at timestamptz, clock text, mono_ms bigint, zero_at timestamptz
) returns timestamptz
language sql immutable parallel safe
return case
    -- No boot lasts a hundred years; more would leave the calendar, and one row must not fail a load.
    when clock = 'unsynced' and mono_ms between 0 and 3155760000000 then
        coalesce(zero_at + mono_ms * interval '1 millisecond', captured_at)
    else captured_at
end;
comment on function scout.corrected_at is
    'When intake saw a record: by the device''s clock, or where that was not synchronised and its boot was measured
     against ours (zero_at, else null), by the time since that boot began.';

create or replace function scout.transaction_key(
    transaction_id text, epoch text, seq bigint, record_id uuid, identity bytea
) returns text
language sql immutable parallel safe
return case
    -- Longer text would not fit an index entry.
    when length(transaction_id) <= 200 then transaction_id
    when transaction_id is not null then 'sha256:' || encode(sha256(convert_to(transaction_id, 'UTF8')), 'hex')
    -- The id belongs in it: a copied spool issues one seq to two sales.
    when epoch is not null then epoch || ':' || seq || ':' || record_id
    else encode(identity, 'hex')
end;
comment on function scout.transaction_key is
    'What makes a sale one sale within its source: the till''s transaction id, else the record itself.';
