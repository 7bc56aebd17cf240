"""Connections, migrations and queries on a real PostgreSQL."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from server.database import BEGIN_AGAIN_MAX, SQL, named_queries, open_pool, transact
from server.errors import Misconfigured
from server.schema import migrate

LEDGER = "select version, name, statements is not null, checksum is not null from supabase_migrations.schema_migrations"


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[psycopg.Connection]:
    """Connect to a database with nothing in it."""
    with psycopg.connect(empty_database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """Copy our own SQL files, to be edited."""
    return shutil.copytree(SQL, tmp_path / "sql")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Write a schema of one migration and two models of which the second stands on the first."""
    folder = tmp_path / "small"
    shutil.copytree(SQL / "migrations", folder / "migrations")
    (folder / "models" / "silver").mkdir(parents=True)
    (folder / "models" / "gold").mkdir()
    (folder / "models" / "silver" / "sale.sql").write_text(
        "drop view if exists public.sale cascade; create view public.sale as select 1 as a;"
    )
    (folder / "models" / "gold" / "total.sql").write_text(
        "create or replace view public.total as select sum(a) from public.sale;"
    )
    return folder


def test_an_empty_database_gets_every_migration_and_model_once(empty: psycopg.Connection) -> None:
    """Migrating twice applies nothing twice."""
    applied = migrate(empty)

    assert {"010_edge", "020_bronze", "bronze/gaps"} <= set(applied)
    assert len(set(applied)) == len(applied)
    assert migrate(empty) == ()


def test_the_ledger_is_the_one_that_supabase_reads(empty: psycopg.Connection) -> None:
    """Each migration is recorded by number, name and text, in Supabase's own table."""
    migrate(empty)

    rows = empty.execute(LEDGER).fetchall()
    assert ("020", "bronze", True, True) in rows
    assert len(rows) == len(list((SQL / "migrations").glob("*.sql")))


def test_migrations_applied_by_supabase_are_taken_over(empty: psycopg.Connection) -> None:
    """What Supabase's tool applied, without our checksum, is not applied again."""
    migrate(empty)
    empty.execute("alter table supabase_migrations.schema_migrations drop column checksum")

    assert migrate(empty) == ()
    assert ("020", "bronze", True, True) in empty.execute(LEDGER).fetchall()


def test_an_edited_migration_is_refused(empty: psycopg.Connection, schema: Path) -> None:
    """The error names the file, and nothing after it is applied."""
    migrate(empty, schema)
    with (schema / "migrations" / "020_bronze.sql").open("a") as file:
        file.write("\n-- edited")
    (schema / "migrations" / "990_more.sql").write_text("create table public.more ()")

    with pytest.raises(Misconfigured, match=r"020_bronze\.sql was edited after it was applied"):
        migrate(empty, schema)
    assert empty.execute("select to_regclass('public.more')").fetchone() == (None,)


def test_another_projects_migration_number_is_refused(empty: psycopg.Connection) -> None:
    """A database that belongs to something else is left alone."""
    migrate(empty)
    empty.execute("update supabase_migrations.schema_migrations set name = 'customers' where version = '020'")

    with pytest.raises(Misconfigured, match=r"020_bronze\.sql: number 020 was used .* by another migration"):
        migrate(empty)


def test_a_failing_migration_leaves_nothing_of_itself(empty: psycopg.Connection, schema: Path) -> None:
    """A migration is applied whole or not at all, and those before it stay."""
    failing = schema / "migrations" / "990_more.sql"
    failing.write_text("create table public.more (); select 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty, schema)
    assert empty.execute("select to_regclass('public.more')").fetchone() == (None,)
    failing.write_text("create table public.more ()")
    assert "990_more" in migrate(empty, schema)


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    """One of them applies everything, the others find it done."""

    def run(_: int) -> tuple[str, ...]:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            return migrate(connection)

    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(run, range(4)))

    assert sum(1 for names in applied if names) == 1


def test_a_changed_model_is_applied_again_with_those_after_it(empty: psycopg.Connection, small: Path) -> None:
    """A view that was dropped with the one it stood on is back when migrating ends."""
    migrate(empty, small)
    model = small / "models" / "silver" / "sale.sql"
    model.write_text(model.read_text().replace("select 1 as a", "select 2 as a"))

    assert migrate(empty, small) == ("silver/sale", "gold/total")
    assert empty.execute("select * from public.total").fetchone() == (2,)


def test_a_failing_model_leaves_all_models_as_they_were(empty: psycopg.Connection, small: Path) -> None:
    """Nobody sees a warehouse half replaced."""
    migrate(empty, small)
    model = small / "models" / "silver" / "sale.sql"
    model.write_text("drop view if exists public.sale cascade; create view public.sale as select 2 as b;")

    with pytest.raises(psycopg.errors.UndefinedColumn):
        migrate(empty, small)
    assert empty.execute("select * from public.total").fetchone() == (1,)


def test_a_connection_cut_by_the_server_is_replaced(pool: ConnectionPool, connection: psycopg.Connection) -> None:
    """After a restart of PostgreSQL the pool gives connections that work."""
    with pool.connection() as before:
        cut = before.info.backend_pid
    connection.execute("select pg_terminate_backend(%s, 5000)", [cut])

    with pool.connection() as after:
        assert after.execute("select 1").fetchone() == (1,)
        assert after.info.backend_pid != cut


def test_a_pool_gives_autocommit_connections(database_url: str) -> None:
    """A statement outside a transaction is committed at once."""
    with open_pool(database_url, size_max=1) as pool, pool.connection() as connection:
        assert connection.autocommit


@pytest.mark.parametrize("error", [psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure])
def test_a_transaction_begins_again_when_postgresql_says_so(pool: ConnectionPool, error: type[psycopg.Error]) -> None:
    """The work runs again from its beginning, and is committed once."""
    tries, pauses = [], []

    def work(connection: psycopg.Connection) -> str:
        connection.execute("insert into scout_bronze.loads (rows) values (1)")
        tries.append(1)
        if len(tries) < 3:
            raise error
        return "done"

    assert transact(pool, work, pauses.append) == "done"
    with pool.connection() as connection:
        assert connection.execute("select count(*) from scout_bronze.loads").fetchone() == (1,)
    assert len(pauses) == 2


def test_a_transaction_does_not_begin_again_for_ever(pool: ConnectionPool) -> None:
    """The last error is raised after a fixed number of tries, and nothing is committed."""
    tries = []

    def work(_: psycopg.Connection) -> None:
        tries.append(1)
        raise psycopg.errors.DeadlockDetected

    with pytest.raises(psycopg.errors.DeadlockDetected):
        transact(pool, work, lambda _: None)
    assert len(tries) == BEGIN_AGAIN_MAX


def test_another_error_is_raised_at_once(pool: ConnectionPool) -> None:
    """Only PostgreSQL's own request to begin again is followed."""
    with pytest.raises(psycopg.errors.UndefinedTable):
        transact(pool, lambda connection: connection.execute("select * from nowhere"), lambda _: pytest.fail("waited"))


def test_queries_have_the_names_of_their_heads() -> None:
    """A room's file gives each query under its name, without the head line."""
    queries = named_queries("loader")

    assert {"claim", "discover", "postpone"} <= set(queries)
    assert queries["claim"].startswith("select file_id")
    assert not any("-- claim" in query for query in queries.values())
