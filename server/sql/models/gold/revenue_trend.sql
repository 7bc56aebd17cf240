-- Grain: one row per business day with sales; sales whose time nobody knows are left out.
drop view if exists scout.gold_revenue_trend;
create view scout.gold_revenue_trend as
with daily as (
    select business_day, count(*) as transactions, sum(revenue) as revenue
    from scout.silver_sales
    where business_day is not null
    group by business_day
)
select
    today.business_day,
    today.transactions,
    today.revenue,
    day_before.revenue as revenue_day_before,
    week_before.revenue as revenue_week_before,
    round(100 * (today.revenue - week_before.revenue) / nullif(week_before.revenue, 0), 2) as change_percent,
    case
        when today.business_day - min(today.business_day) over () >= 6 then round(
            sum(today.revenue) over (
                order by today.business_day range between interval '6 days' preceding and current row
            ) / 7,
            2
        )
    end as revenue_7_day_average
from daily as today
left join daily as day_before on day_before.business_day = today.business_day - 1
left join daily as week_before on week_before.business_day = today.business_day - 7
order by today.business_day;
comment on view scout.gold_revenue_trend is
    'Whether revenue grows: each business day beside the day and the week before it. One row per day with sales,
     where the store is. Pesos and percent; voided sales, and those whose time nobody knows, excluded.';
comment on column scout.gold_revenue_trend.transactions is 'Sales.';
comment on column scout.gold_revenue_trend.revenue is 'What was paid, in pesos.';
comment on column scout.gold_revenue_trend.revenue_day_before is
    'In pesos, of the calendar day before; null where that had no sales.';
comment on column scout.gold_revenue_trend.revenue_week_before is
    'In pesos, of the same weekday a week before; null where that had no sales.';
comment on column scout.gold_revenue_trend.change_percent is
    'Against the same weekday a week before; null where that had no revenue.';
comment on column scout.gold_revenue_trend.revenue_7_day_average is
    'Pesos a day, to the centavo, over this and the 6 calendar days before, days without sales included; null until 7
     days have passed.';
