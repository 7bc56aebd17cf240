-- Whether these loads type rows anew that may say something else than before: not their versions but how they are
-- read has changed, so what they named until now is written nowhere any more.
create or replace function scout.is_typed_anew(loads bigint[]) returns boolean
language sql stable
return exists (
    select
    from scout_bronze.loads as load
    where load.load_id = any (is_typed_anew.loads) and load.first_raw_id is not null and load.store_id is null
);
comment on function scout.is_typed_anew is
    'Whether a range of all stores'' rows is typed again by these loads, as scout.type_again() has it.';
