-- Puts back what 025 set aside: the old table takes the place of the one that 030 made a moment ago, which is
-- empty, and gets the columns that it lacks. No row of it is rewritten: columns come without a default, and the
-- number of the load by which all its rows flow on to silver is a default that PostgreSQL keeps beside them.
do $$
declare
    adopted text;
    ours jsonb; -- the columns that 030 gave our table
    of_ours record;
    rows_adopted bigint;
    adopted_load bigint;
begin
    if to_regnamespace('scout_adopted') is null then
        return;
    end if;
    foreach adopted in array array['bronze_edge_raw', 'bronze_transactions_raw'] loop
        continue when to_regclass('scout_adopted.' || adopted) is null;
        execute format('select count(*) from scout_adopted.%I', adopted) into rows_adopted;
        if rows_adopted > 0 then
            if adopted_load is null then
                insert into scout_bronze.loads (rows) values (0) returning load_id into adopted_load;
            end if;
            update scout_bronze.loads set rows = rows + rows_adopted where load_id = adopted_load;
        end if;

        ours := (
            select jsonb_agg(
                jsonb_build_object(
                    'name', attname,
                    'type', format_type(atttypid, atttypmod),
                    'standard', pg_get_expr(adbin, adrelid)
                )
                order by attnum
            )
            from pg_attribute
            left join pg_attrdef on adrelid = attrelid and adnum = attnum
            where attrelid = ('scout.' || adopted)::regclass and attnum > 0 and not attisdropped
        );
        execute format('drop table scout.%I', adopted);
        execute format('alter table scout_adopted.%I set schema scout', adopted);
        for of_ours in
            select column_of.name, column_of.type, column_of.standard
            from jsonb_to_recordset(ours) as column_of (name text, type text, standard text)
            where not exists (
                select
                from pg_attribute
                where attrelid = ('scout.' || adopted)::regclass and attname = column_of.name and not attisdropped
            )
        loop
            execute format(
                'alter table scout.%I add column %I %s%s', adopted, of_ours.name, of_ours.type,
                case when of_ours.name = 'load_id' and rows_adopted > 0 then ' default ' || adopted_load end
            );
            if of_ours.name = 'load_id' then
                execute format('alter table scout.%I alter column load_id drop default', adopted);
            elsif of_ours.standard is not null then
                execute format(
                    'alter table scout.%I alter column %I set default %s', adopted, of_ours.name, of_ours.standard
                );
            end if;
        end loop;
        -- Only of rows that come by way of scout_bronze: the adopted ones have no raw_id.
        execute format('create unique index %I on scout.%I (raw_id)', adopted || '_raw_id_key', adopted);
        execute format('create index %I on scout.%I (load_id)', adopted || '_load', adopted);
    end loop;
    alter table scout.bronze_transactions_raw alter column processed set default true;
    drop schema scout_adopted;
end
$$;

-- Since version 16 of PostgreSQL, whoever makes a role may administer it but not become it.
do $$
begin
    if current_setting('server_version_num')::integer >= 160000
        and not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
    then
        execute format('grant edge_uploader to %I with set true, inherit false', current_user);
    end if;
end
$$;
