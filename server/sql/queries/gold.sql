-- refresh_basket_patterns -- fills it anew; with an age, only where it is older and something came since
select rows, extract(epoch from took)::double precision as took_s from scout.refresh_basket_patterns(%(older_than)s)

-- catalogue -- what analysts read, each relation with its comment and its columns in order
select
    schema.nspname as schema,
    relation.relname as name,
    case relation.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end as kind,
    coalesce(obj_description(relation.oid, 'pg_class'), '') as comment,
    (
        select
            json_agg(
                json_build_array(
                    attname, format_type(atttypid, atttypmod), coalesce(col_description(attrelid, attnum), '')
                )
                order by attnum
            )
        from pg_attribute
        where attrelid = relation.oid and attnum > 0 and not attisdropped
    ) as columns
from pg_class as relation
join pg_namespace as schema on schema.oid = relation.relnamespace
where relation.relkind in ('r', 'p', 'v', 'm')
    and (
        schema.nspname = 'scout_gold'
        or (schema.nspname = 'scout' and relation.relname ~ '^(gold|dim)_')
    )
order by schema.nspname, relation.relname collate "C"
