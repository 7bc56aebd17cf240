-- The calendar holds every day from the first sale to the last, of those between 2000 and 2099, and no other.
with span as (
    select min(business_day) as first_day, max(business_day) as last_day
    from scout.silver_transactions
    where business_day between date '2000-01-01' and date '2099-12-31'
),
right_days as (
    select first_day + since as day
    from span
    cross join lateral generate_series(0, last_day - first_day) as since
)
select day
from right_days
full join scout.dim_date as calendar using (day)
where right_days.day is null or calendar.day is null
