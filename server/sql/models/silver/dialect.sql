-- What a till said, by silver's names for it. The functions scout.told_… are made of scout.dialect, here and whenever
-- the table changes, so that reading is as quick as if the tills' names stood in the models.

-- Stand-ins that name and describe them.
create or replace function scout.told_sale(payload jsonb) returns setof scout.told_sale
language sql immutable parallel safe rows 1
as 'select null::scout.told_sale';
comment on function scout.told_sale is
    'One row: what a payload, an object, says of the sale itself. Null is what it doesn''t say.';

create or replace function scout.told_substitution(payload jsonb) returns setof scout.told_substitution
language sql immutable parallel safe rows 1
as 'select null::scout.told_substitution';
comment on function scout.told_substitution is 'One row: what a payload says of a substitution, as scout.told_sale.';

create or replace function scout.told_list(payload jsonb) returns setof scout.told_list
language sql immutable parallel safe rows 1
as 'select null::scout.told_list';
comment on function scout.told_list is 'One row: the lists in a payload, as scout.told_sale.';

create or replace function scout.told_item(payload jsonb) returns setof scout.told_item
language sql immutable parallel safe rows 1
as 'select null::scout.told_item';
comment on function scout.told_item is 'One row: what an element of the list of items says, as scout.told_sale.';

create or replace function scout.told_combo_item(payload jsonb) returns setof scout.told_combo_item
language sql immutable parallel safe rows 1
as 'select null::scout.told_combo_item';
comment on function scout.told_combo_item is
    'One row: what an element of the list combo_basket says, as scout.told_sale.';

create or replace function scout.told_event(payload jsonb) returns setof scout.told_event
language sql immutable parallel safe rows 1
as 'select null::scout.told_event';
comment on function scout.told_event is
    'One row: the few fields of scout.told_sale that say which sale a payload tells of, where and when.';

-- The fields of each reader, in the order of its type.
drop view if exists scout.told_fields;
create view scout.told_fields as
select
    readers.reader,
    readers.part,
    columns.attname::text as field,
    columns.attnum as place,
    columns.atttypid = 'text'::regtype as is_zone
from (
    values
        ('told_sale', 'sale'),
        ('told_event', 'sale'),
        ('told_substitution', 'substitution'),
        ('told_list', 'list'),
        ('told_item', 'item'),
        ('told_combo_item', 'combo_item')
) as readers (reader, part)
join pg_catalog.pg_attribute as columns
    on columns.attrelid = (select typrelid from pg_catalog.pg_type where oid = to_regtype('scout.' || readers.reader))
where columns.attnum > 0 and not columns.attisdropped;
comment on view scout.told_fields is
    'One row per function scout.told_… and field that it tells: the fields that scout.dialect may give a place.';

create or replace function scout.make_readers() returns void
language plpgsql
as $make$
declare
    reader record;
begin
    for reader in
        with place as (
            select
                part,
                field,
                preference,
                zone,
                path[1] as name,
                case
                    when cardinality(path) = 1 then format('told.%I', path[1])
                    else format($$nullif(told.%I #> %L, 'null')$$, path[1], path[2:])
                end as value
            from scout.dialect
        ),
        reading as (
            select
                part,
                field,
                format('coalesce(%s)', string_agg(value, ', ' order by preference)) as value,
                format(
                    'case %s end',
                    string_agg(format('when %s is not null then %L::text', value, zone), ' ' order by preference)
                ) as zone
            from place
            group by part, field
        )
        select
            told_fields.reader,
            told_fields.part,
            string_agg(
                coalesce(
                    case when told_fields.is_zone then reading.zone else reading.value end,
                    case when told_fields.is_zone then 'null::text' else 'null::jsonb' end
                ),
                ', '
                order by told_fields.place
            ) as fields,
            coalesce(
                (
                    select string_agg(distinct format('%I jsonb', name), ', ')
                    from place
                    where place.part = told_fields.part
                ),
                'nothing jsonb'
            ) as names
        from scout.told_fields
        left join reading
            on reading.part = told_fields.part
            and reading.field = case
                when told_fields.is_zone then regexp_replace(told_fields.field, '_zone$', '')
                else told_fields.field
            end
        group by told_fields.reader, told_fields.part
    loop
        execute format(
            $$
            create or replace function scout.%1$I(payload jsonb) returns setof scout.%1$I
            language sql immutable parallel safe rows 1
            as $body$
                select %2$s
                from jsonb_to_record(%3$s) as told (%4$s)
            $body$
            $$,
            reader.reader,
            reader.fields,
            -- Bronze's payloads are objects; what is in their lists may be anything.
            case when reader.part in ('item', 'combo_item') then $$case when jsonb_typeof($1) = 'object' then $1 end$$
                else '$1'
            end,
            reader.names
        );
    end loop;
end
$make$;
comment on function scout.make_readers is 'Gives the functions scout.told_… their bodies, from scout.dialect.';

create or replace function scout.dialect_changed() returns trigger
language plpgsql
as $$
declare
    stray record;
begin
    select part, field into stray
    from scout.dialect
    where not exists (
        select
        from scout.told_fields
        where told_fields.part = dialect.part and told_fields.field = dialect.field and not told_fields.is_zone
    )
    limit 1;
    if found then
        raise exception 'silver has no field % in %', stray.field, stray.part
            using hint = 'scout.told_fields lists those that it has.';
    end if;
    perform scout.make_readers();
    return null;
end
$$;
comment on function scout.dialect_changed is 'Trigger: the readers follow the table.';

create or replace trigger hold_etl before insert or update or delete or truncate on scout.dialect
for each statement execute function scout_bronze.hold_etl_first();
create or replace trigger dialect_changed
after insert or update or delete or truncate on scout.dialect
for each statement execute function scout.dialect_changed();

select scout.make_readers();
