-- Step of the ETL, after product_days. Grain: one row per sku with sales. Reads scout.product_growth, which it adds to
-- the stored sums, and of scout.dim_sku every sku's names. What compares a product with the others is derived from
-- the stored sums.
create or replace function scout_gold.refresh_product_insights(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    rows_read bigint := 0;
    rows_written bigint := 0;
begin
    -- Where none changed, the products need not be compared.
    if exists (select from scout.product_growth) then
        with growth as (
            delete from scout.product_growth returning *
        ),
        summed as materialized (
            select
                growth.sku,
                growth.transactions + coalesce(stored.transactions, 0) as transactions,
                -- A quantity of nothing known is none, and not 0.
                case
                    when exists (
                        select from scout.product_days as day where day.sku = growth.sku and day.quantity is not null
                    ) then growth.quantity + coalesce(stored.quantity, 0)
                end as quantity,
                growth.revenue + coalesce(stored.revenue, 0) as revenue,
                (select min(business_day) from scout.product_days as day where day.sku = growth.sku) as first_day,
                (select max(business_day) from scout.product_days as day where day.sku = growth.sku) as last_day
            from (
                select
                    sku,
                    sum(transactions)::bigint as transactions,
                    sum(quantity) as quantity,
                    sum(revenue) as revenue
                from growth
                group by sku
            ) as growth
            left join scout_gold.product_insights as stored using (sku)
        ),
        standing as (
            select * from summed where transactions > 0
            union all
            select sku, transactions, quantity, revenue, first_day, last_day
            from scout_gold.product_insights as stored
            where not exists (select from summed where summed.sku = stored.sku)
        ),
        derived as materialized (
            select
                sku,
                dim.product_name,
                dim.product_category,
                dim.brand_name,
                transactions,
                quantity,
                revenue,
                round(revenue / nullif(quantity, 0), 4) as average_price,
                first_day,
                last_day,
                round(100 * revenue / nullif(sum(revenue) over (), 0), 2) as revenue_percent,
                rank() over (order by revenue desc) as revenue_rank,
                rank() over (partition by dim.product_category order by revenue desc) as category_rank
            from standing
            left join scout.dim_sku as dim using (sku)
        ),
        removed as (
            delete from scout_gold.product_insights as stored
            using summed
            where stored.sku = summed.sku and summed.transactions = 0
            returning stored.sku
        ),
        written as (
            insert into scout_gold.product_insights as stored
            select derived.*
            from derived
            where derived is distinct from (
                select stored from scout_gold.product_insights as stored where stored.sku = derived.sku
            )
            on conflict (sku) do update set (
                product_name, product_category, brand_name, transactions, quantity, revenue, average_price,
                first_day, last_day, revenue_percent, revenue_rank, category_rank
            ) = (
                excluded.product_name, excluded.product_category, excluded.brand_name, excluded.transactions,
                excluded.quantity, excluded.revenue, excluded.average_price, excluded.first_day, excluded.last_day,
                excluded.revenue_percent, excluded.revenue_rank, excluded.category_rank
            )
            returning sku
        )
        select
            (select count(*) from derived) + (select count(*) from removed),
            (select count(*) from written) + (select count(*) from removed)
        into rows_read, rows_written;
    end if;

    return next row(
        'scout_gold.product_insights', rows_read, rows_written, rows_read - rows_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout_gold.refresh_product_insights is
    'Adds what scout.product_days grew by, which is nothing where only a name, brand or category changed, and compares
     all products anew. Run it after scout.refresh_product_days; it may be run again.';
