-- Grain: one row per two skus that were bought together in at least 10 sales.
-- Filled here when it is first made; from then on by `scout-server gold refresh` and by the server itself. It is never
-- dropped by a model, so that it is never empty: scout.silver_sku_pairs says what fills it, and may be replaced.
create materialized view if not exists scout.gold_basket_patterns as
select * from scout.silver_sku_pairs;
-- Lets it be refreshed while it is read.
create unique index if not exists gold_basket_patterns_key on scout.gold_basket_patterns (sku_a, sku_b);
comment on materialized view scout.gold_basket_patterns is
    'Which products are bought together. One row per two skus that at least 10 sales have both, the lesser first in the
     order of bytes. Counts of sales and percent; a sale without items is one item; voided sales and items without sku
     excluded. As of its last refresh, one a day where the server runs: scout.refreshed says when.';
comment on column scout.gold_basket_patterns.sku_a is 'The lesser of the two, in the order of bytes.';
comment on column scout.gold_basket_patterns.sku_b is 'The greater of the two.';
comment on column scout.gold_basket_patterns.transactions_a is 'Sales with sku_a.';
comment on column scout.gold_basket_patterns.transactions_b is 'Sales with sku_b.';
comment on column scout.gold_basket_patterns.transactions_together is
    'Sales with both; a sku on two lines of a sale counts once.';
comment on column scout.gold_basket_patterns.support_percent is 'Together, of all sales; to 4 places.';
comment on column scout.gold_basket_patterns.confidence_a_to_b_percent is 'Together, of the sales with sku_a.';
comment on column scout.gold_basket_patterns.confidence_b_to_a_percent is 'Together, of the sales with sku_b.';
comment on column scout.gold_basket_patterns.lift is
    'How many times more often together than by chance, among all sales; to 4 places.';

-- Fills it anew, apart from the ETL, which it never holds up: it locks nothing that the ETL writes. While it runs, and
-- should it fail, analysts read what was there before.
--
-- May be relied on: one at a time, in whatever process. Called with an age, it is cheap to ask, and does nothing while
-- the last refresh is younger or has seen all that came.
create or replace function scout.refresh_basket_patterns(older_than interval default null)
returns table (rows bigint, took interval)
language plpgsql volatile
set jit = off
-- Some nine million pairs are counted: less, and they are written to disk over and over.
set work_mem = '64MB'
as $$
declare
    began timestamptz;
    newest bigint;
begin
    -- An upgrade replaces what is read here. As in server/sql/queries/database.sql: each waits for the other before it
    -- has locked anything that a third might want.
    perform pg_advisory_xact_lock_shared(hashtext('scout-edge migrations'));
    perform pg_advisory_xact_lock(hashtextextended('scout.refresh_basket_patterns', 0));
    began := clock_timestamp();
    -- Read before the refresh: what comes meanwhile may be in it, and makes the next one due all the same.
    -- The ETL moves rows one run after the other, so whatever it committed since has a higher number.
    newest := (select max(ingest_id) from scout.bronze_transactions_raw);
    if older_than is not null and (
        newest is null
        or exists (
            select
            from scout.refreshed
            where relation = 'scout.gold_basket_patterns'
                and (refreshed_at > began - older_than or newest_row = newest)
        )
    ) then
        return;
    end if;

    refresh materialized view concurrently scout.gold_basket_patterns;

    insert into scout.refreshed as last (relation, refreshed_at, took, newest_row)
    values ('scout.gold_basket_patterns', began, clock_timestamp() - began, newest)
    on conflict (relation) do update
    set (refreshed_at, took, newest_row) = (excluded.refreshed_at, excluded.took, excluded.newest_row);
    return query
    select (select count(*) from scout.gold_basket_patterns), last.took
    from scout.refreshed as last
    where last.relation = 'scout.gold_basket_patterns';
end
$$;
comment on function scout.refresh_basket_patterns is
    'Fills scout.gold_basket_patterns anew and returns one row: how many rows it has, and how long it took. With
     older_than, only where the last refresh is older than that and something came since; else returns no row.';
