-- What a till's payload names as products, whether or not it is the sale's latest version: of that one silver's own
-- tables say it, of earlier ones only bronze does.
create or replace function scout.said_products(payload jsonb)
returns table (sku text, product_category text, brand_name text)
language sql immutable parallel safe
as $$
    with said as (
        select
            payload -> 'items' as items,
            payload -> 'combo_basket' as combo_basket,
            payload -> 'substitution_event' as substitution
    )
    select
        scout.said_text(line.item -> 'sku'),
        scout.said_text(coalesce(scout.part(line.item, 'product_category'), scout.part(line.item, 'category_name'))),
        scout.said_text(line.item -> 'brand_name')
    from said
    cross join lateral jsonb_array_elements(case when jsonb_typeof(items) = 'array' then items end) as line (item)
    union all
    select scout.said_text(line.item -> 'sku'), null, null
    from said
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof(combo_basket) = 'array' then combo_basket end
    ) as line (item)
    union all
    select scout.said_text(named.sku), null, scout.said_text(named.brand)
    from said
    cross join lateral (
        values
            (substitution -> 'from_sku', substitution -> 'from_brand'),
            (substitution -> 'to_sku', substitution -> 'to_brand')
    ) as named (sku, brand)
$$;
comment on function scout.said_products is
    'What the items, the combo_basket and the substitution of a payload name: a sku, its category, its brand.';
