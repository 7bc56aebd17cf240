-- What a payload names as products. Of a sale's latest version silver's own tables say it; of earlier ones only
-- bronze does.
create or replace function scout.said_products(payload jsonb)
returns table (sku text, product_category text, brand_name text)
language sql immutable parallel safe
as $$
    with said as materialized (
        select
            scout.said_field(payload, 'items') as items,
            scout.said_field(payload, 'combo_basket') as combo_basket,
            scout.said_substitution(payload) as substitution
    ),
    product as (
        select scout.said_item(line.item) as said
        from said
        cross join lateral jsonb_array_elements(case when jsonb_typeof(items) = 'array' then items end) as line (item)
        union all
        select scout.said_combo_item(line.item)
        from said
        cross join lateral jsonb_array_elements(
            case when jsonb_typeof(combo_basket) = 'array' then combo_basket end
        ) as line (item)
        union all
        select jsonb_build_object('sku', named.sku, 'brand_name', named.brand_name)
        from said
        cross join lateral (
            values
                (substitution -> 'from_sku', substitution -> 'from_brand'),
                (substitution -> 'to_sku', substitution -> 'to_brand')
        ) as named (sku, brand_name)
    )
    select
        scout.said_text(said -> 'sku'),
        scout.said_text(said -> 'product_category'),
        scout.said_text(said -> 'brand_name')
    from product
$$;
comment on function scout.said_products is
    'What the items, the combo_basket and the substitution of a payload name: a sku, its category, its brand.';
