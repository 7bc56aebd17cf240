-- As in reading.sql, for what rows are found by: stores, skus, brands, categories.
create or replace function scout.said_name(said jsonb) returns text
language sql immutable parallel safe
return case when length(scout.said_text(said)) <= 200 then scout.said_text(said) end;
comment on function scout.said_name is
    'As scout.said_text; null from 201 characters on, for longer text would not fit an index entry and fail its load.';
