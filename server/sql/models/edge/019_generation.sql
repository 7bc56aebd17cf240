-- Which life of this database a device is told: the database's own, or where the device was asked anew one of its
-- own that follows from both. A device that hears another one than before asks again about all batches it keeps.
create or replace function scout_edge.generation_for(device text)
returns text
language sql
stable
set search_path = ''
as $$
    select case
        when asked_anew.times is null then settings.generation::text
        else md5(settings.generation || ' ' || asked_anew.times)::uuid::text
    end
    from scout_edge.settings
    left join scout_edge.asked_anew on asked_anew.device_id = $1
$$;
revoke all on function scout_edge.generation_for(text) from public;
