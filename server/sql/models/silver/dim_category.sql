-- Grain: one row per category that any version of a sale named.
create or replace function scout.refresh_dim_category(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    categories_read bigint;
    categories_written bigint;
begin
    with touched as materialized (
        select distinct product_category
        from scout.touched_products(loads)
        where product_category is not null
    ),
    written as (
        insert into scout.dim_category (product_category)
        select product_category from touched
        on conflict (product_category) do nothing
        returning product_category
    )
    select (select count(*) from touched), (select count(*) from written)
    into categories_read, categories_written;

    return next row(
        'scout.dim_category', categories_read, categories_written, categories_read - categories_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_category is
    'Adds the categories that the sales of these loads name. Run it after the steps that type sales, items and
     substitutions for the same loads; it may be run again.';
