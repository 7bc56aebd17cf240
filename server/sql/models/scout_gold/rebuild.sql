-- Everything anew, by the same steps that keep it up to date: the rows are those that the ETL had made.
create or replace function scout_gold.rebuild()
returns setof scout_bronze.step_result
language plpgsql
set jit = off
set work_mem = '64MB'
as $$
declare
    -- In the ETL's order.
    steps constant text[] := array[
        'scout_gold.refresh_daily_transactions',
        'scout.refresh_store_days',
        'scout_gold.refresh_weekly_performance',
        'scout_gold.refresh_monthly_trends',
        'scout_gold.refresh_store_rankings',
        'scout.refresh_product_days',
        'scout_gold.refresh_product_insights'
    ];
    step text;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'rebuild must run in READ COMMITTED, not in %', upper(current_setting('transaction_isolation'))
            using hint = 'With an older snapshot it would miss what the ETL did while it waited.';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('scout_bronze.etl_to_production', 0));

    -- Not truncated: who reads meanwhile sees the rows as they were.
    delete from scout_gold.daily_transactions;
    delete from scout_gold.weekly_performance;
    delete from scout_gold.monthly_trends;
    delete from scout_gold.store_rankings;
    delete from scout_gold.product_insights;
    delete from scout.store_days;
    delete from scout.product_days;
    delete from scout.product_growth;
    delete from scout.groups_due;
    insert into scout.groups_due (target, day, member)
    select distinct part.target, part.day, part.member
    from (select distinct business_day, device_id, store_id from scout.silver_transactions) as sale
    cross join lateral scout.groups_of(sale.business_day, sale.device_id, sale.store_id) as part;

    foreach step in array steps loop
        return query execute format('select * from %s(''{}'')', step);
    end loop;
end
$$;
comment on function scout_gold.rebuild is
    'Makes the tables of scout_gold anew from silver, in one transaction and one after the other with the ETL; returns
     what each step did. Needed only after somebody changed them, or emptied silver by truncate, which tells nobody.';
