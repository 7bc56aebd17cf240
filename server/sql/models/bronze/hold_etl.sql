-- Keeps the ETL from running until this transaction ends; one that runs is waited for. So what follows sees all that it
-- wrote, and the next one sees all that follows.
create or replace function scout_bronze.hold_etl() returns void
language plpgsql
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'this must run in READ COMMITTED, not in %', upper(current_setting('transaction_isolation'))
            using hint = 'Beside a run that an older snapshot doesn''t see, silver would be left wrong for good.';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('scout_bronze.etl_to_production', 0));
end
$$;
comment on function scout_bronze.hold_etl is
    'Lets no ETL run until this transaction ends, and waits for one that does.';

create or replace function scout_bronze.hold_etl_first() returns trigger
language plpgsql
as $$
begin
    perform scout_bronze.hold_etl();
    return null;
end
$$;
comment on function scout_bronze.hold_etl_first is
    'Trigger, before the statement: no row is locked yet that a running ETL may want.';
