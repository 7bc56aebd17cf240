-- Grain: one row per calendar day from the first to the last business day of scout.silver_transactions, of those
-- between 2000 and 2099: a till whose clock is centuries off makes no calendar of centuries.
create or replace function scout.refresh_dim_date(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    first_day date;
    last_day date;
    days_read bigint := 0;
    days_written bigint := 0;
begin
    if cardinality(loads) > 0 then
        select min(business_day), max(business_day)
        from scout.silver_transactions
        where business_day between date '2000-01-01' and date '2099-12-31'
        into first_day, last_day;

        delete from scout.dim_date
        where first_day is null or day < first_day or day > last_day;

        insert into scout.dim_date (
            day, year, quarter, month, month_begins, iso_year, iso_week, week_begins, weekday, weekday_name,
            is_weekend
        )
        select
            day,
            extract(year from day),
            extract(quarter from day),
            extract(month from day),
            date_trunc('month', day::timestamp),
            extract(isoyear from day),
            extract(week from day),
            date_trunc('week', day::timestamp),
            extract(isodow from day),
            -- to_char would answer in the language of whoever asks.
            (array['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'])[
                extract(isodow from day)::integer
            ],
            extract(isodow from day) > 5
        from (
            select first_day + since as day
            from generate_series(0, last_day - first_day) as since
        ) as calendar
        where not exists (select from scout.dim_date as known where known.day = calendar.day);

        get diagnostics days_written = row_count;
        days_read := coalesce(last_day - first_day + 1, 0);
    end if;

    return next row('scout.dim_date', days_read, days_written, days_read - days_written, 0)::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_date is
    'Makes the calendar reach from the first sale to the last. Run it after scout.refresh_silver_transactions; it may
     be run again.';
