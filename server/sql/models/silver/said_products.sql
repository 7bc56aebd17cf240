-- What a payload names as products. Of a sale's latest version silver's own tables say it; of earlier ones only
-- bronze does.
create or replace function scout.said_products(payload jsonb)
returns table (sku text, product_category text, brand_name text)
language sql immutable parallel safe
as $$
    select scout.said_name(item.sku), scout.said_name(item.product_category), scout.said_name(item.brand_name)
    from scout.told_list(payload) as told
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof(told.items) = 'array' then told.items end
    ) as line (item)
    cross join lateral scout.told_item(line.item) as item
    union all
    select scout.said_name(item.sku), null, null
    from scout.told_list(payload) as told
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof(told.combo_basket) = 'array' then told.combo_basket end
    ) as line (item)
    cross join lateral scout.told_combo_item(line.item) as item
    union all
    select scout.said_name(named.sku), null, scout.said_name(named.brand)
    from scout.told_substitution(payload) as told
    cross join lateral (values (told.from_sku, told.from_brand), (told.to_sku, told.to_brand)) as named (sku, brand)
$$;
comment on function scout.said_products is
    'What the items, the combo_basket and the substitution of a payload name: a sku, its category, its brand.';
