-- Grain: one row per brand that any version of a sale named.
create or replace function scout.refresh_dim_brand(loads bigint[])
returns setof scout_bronze.step_result
language plpgsql
as $$
declare
    brands_read bigint;
    brands_written bigint;
begin
    with touched as materialized (
        select distinct brand_name
        from scout.touched_products(loads)
        where brand_name is not null
    ),
    written as (
        insert into scout.dim_brand (brand_name)
        select brand_name from touched
        on conflict (brand_name) do nothing
        returning brand_name
    )
    select (select count(*) from touched), (select count(*) from written)
    into brands_read, brands_written;

    return next row(
        'scout.dim_brand', brands_read, brands_written, brands_read - brands_written, 0
    )::scout_bronze.step_result;
end
$$;
comment on function scout.refresh_dim_brand is
    'Adds the brands that the sales of these loads name. Run it after the steps that type sales, items and
     substitutions for the same loads; it may be run again.';
