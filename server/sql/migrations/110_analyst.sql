-- The role of those who ask questions: it may read gold and the dimensions (server/sql/queries/database.sql grants
-- that at the end of each `migrate`), and nothing else. Nobody logs in as it: `grant scout_analyst to NAME`.
-- Roles belong to the whole cluster: another database of it may have made this one already.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'scout_analyst') then
        create role scout_analyst nologin;
    end if;
exception
    -- Another database of this cluster was faster.
    when duplicate_object or unique_violation then null;
end
$$;
