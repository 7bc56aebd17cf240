-- What the warehouse holds of the fleet's sales, and how late it had them.
select
    (select count(*) from scout_bronze.transactions_raw) as bronze_rows,
    (select count(distinct (device_id, epoch, seq)) from scout_bronze.transactions_raw) as bronze_records,
    (select count(*) from scout.silver_transactions) as silver_sales,
    (select coalesce(sum(peso_value), 0) from scout.silver_transactions) as silver_pesos,
    (select coalesce(sum(revenue), 0) from scout.gold_daily_revenue) as gold_pesos,
    (select count(*) from scout_bronze.gaps) as gaps,
    (select count(*) from scout_bronze.forks) as forks,
    (select count(*) from scout_bronze.quarantine where kind = 'line') as refused_lines,
    (select count(*) from scout_bronze.loads) as loads_left,
    (select sum(deadlocks) from pg_stat_database)::bigint as deadlocks,
    (
        select coalesce(percentile_cont(0.5) within group (order by extract(epoch from moved_at - ingested_at)), 0)::float8
        from scout.bronze_transactions_raw
    ) as etl_p50_s,
    (
        select coalesce(max(extract(epoch from moved_at - ingested_at)), 0)::float8
        from scout.bronze_transactions_raw
    ) as etl_max_s,
    -- As the system itself measured it: the upper bound of a bucket.
    coalesce(
        (select p95_last_day_s from scout_bronze.device_lags where kind = 'etl' and device_id is null), 0
    ) as etl_p95_s
