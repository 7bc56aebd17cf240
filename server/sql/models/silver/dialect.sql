-- What a till said, by silver's names for it. The functions scout.said_… are made of scout.dialect, here and whenever
-- the table changes, so that reading is as quick as if the tills' names stood in the models.

-- Stand-ins that name and describe them.
create or replace function scout.said_sale(payload jsonb) returns jsonb
language sql immutable parallel safe
return '{}'::jsonb;
comment on function scout.said_sale is
    'What a payload says of the sale itself: one key for each field of scout.dialect of which it says anything, and
     timestamp_zone where its time counts in a zone of its own. An empty object for what is no object.';

create or replace function scout.said_substitution(payload jsonb) returns jsonb
language sql immutable parallel safe
return '{}'::jsonb;
comment on function scout.said_substitution is 'What a payload says of a substitution, as scout.said_sale does.';

create or replace function scout.said_item(payload jsonb) returns jsonb
language sql immutable parallel safe
return '{}'::jsonb;
comment on function scout.said_item is 'What an element of the list of items says, as scout.said_sale does.';

create or replace function scout.said_combo_item(payload jsonb) returns jsonb
language sql immutable parallel safe
return '{}'::jsonb;
comment on function scout.said_combo_item is
    'What an element of the list combo_basket says, as scout.said_sale does.';

create or replace function scout.said_field(payload jsonb, field text) returns jsonb
language sql immutable parallel safe
return null::jsonb;
comment on function scout.said_field is
    'One field of a payload: a list (items, combo_basket) or one that scout.said_sale has; null where it says nothing
     of it. Give it a constant name and a column: then only the places of that field are looked at.';

create or replace function scout.make_readers() returns void
language plpgsql
as $make$
declare
    part record;
begin
    for part in
        with place as (
            select
                dialect.part,
                dialect.field,
                dialect.preference,
                dialect.zone,
                format($$nullif(payload #> %L, 'null')$$, dialect.path) as value
            from scout.dialect
        ),
        reading as (
            select
                place.part,
                place.field,
                format('coalesce(%s)', string_agg(place.value, ', ' order by place.preference)) as value
            from place
            group by place.part, place.field
            union all
            select
                place.part,
                place.field || '_zone',
                format(
                    'case %s end',
                    string_agg(
                        format('when %s is not null then %L::jsonb', place.value, to_jsonb(place.zone)),
                        ' ' order by place.preference
                    )
                )
            from place
            group by place.part, place.field
            having bool_or(place.zone is not null)
        )
        select
            listed.name,
            string_agg(format('%L, %s', reading.field, reading.value), ', ' order by reading.field)
                filter (where reading.field is not null) as pairs,
            string_agg(format('when %L then %s', reading.field, reading.value), ' ' order by reading.field)
                filter (where reading.field is not null) as cases
        from unnest(array['sale', 'substitution', 'item', 'combo_item', 'field']) as listed (name)
        left join reading
            on reading.part = listed.name
            or (listed.name = 'field' and reading.part in ('sale', 'list'))
        group by listed.name
    loop
        if part.name = 'field' then
            execute format(
                $$
                create or replace function scout.said_field(payload jsonb, field text) returns jsonb
                language sql immutable parallel safe
                return case field %s else null::jsonb end
                $$,
                coalesce(part.cases, 'when null then null::jsonb')
            );
        else
            -- What is joined to nothing is unpacked once, where every look at a stored payload would unpack it anew.
            execute format(
                $$
                create or replace function scout.%I(payload jsonb) returns jsonb
                language plpgsql immutable parallel safe
                as $body$
                begin
                    payload := payload || '{}';
                    return jsonb_strip_nulls(jsonb_build_object(%s));
                end
                $body$
                $$,
                'said_' || part.name, part.pairs
            );
        end if;
    end loop;
end
$make$;
comment on function scout.make_readers is 'Gives the functions scout.said_… their bodies, from scout.dialect.';

create or replace function scout.dialect_changed() returns trigger
language plpgsql
as $$
begin
    perform scout.make_readers();
    return null;
end
$$;
comment on function scout.dialect_changed is 'Trigger: the readers follow the table.';

create or replace trigger dialect_changed
after insert or update or delete or truncate on scout.dialect
for each statement execute function scout.dialect_changed();

select scout.make_readers();
