-- A deployment that scout-edge continues may have these two tables already. They are kept as they are: set
-- aside here, so that 030 can make ours, and put back by 045 with the columns that they lack.
do $$
declare
    adopted text;
begin
    if exists (select from supabase_migrations.schema_migrations where version = '030') then
        return;
    end if;
    foreach adopted in array array['bronze_edge_raw', 'bronze_transactions_raw'] loop
        if to_regclass('scout.' || adopted) is not null then
            create schema if not exists scout_adopted;
            execute format('alter table scout.%I set schema scout_adopted', adopted);
        end if;
    end loop;
end
$$;
