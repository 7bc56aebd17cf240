"""What `migrate` makes where Supabase's storage server is, and what a device's token can do there.

The storage server asks by an INSERT in the token's role, without RETURNING, and rolls it back: so do these
tests. Who migrates is no superuser.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from clusters import a_database
from landing import land, record
from programs import scout_server
from projects import STORAGE, make_project, owners
from psycopg import sql
from psycopg.types.json import Jsonb

from server.backup import BackupFolder, Source, back_up
from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.errors import Misconfigured
from server.etl import run_etl
from server.gold import refresh
from server.restore import choose, restore_pieces
from server.schema import migrate, plan

PROBE = "insert into storage.objects (bucket_id, name, version, metadata, owner_id) values (%s, %s, %s, %s, %s)"
NAME = "2026-01-20/pi-05/day.jsonl.gz"
ISSUED_AT = 1_800_000_000
CLAIMS: dict[str, Any] = {
    "role": "edge_uploader",
    "sub": "pi-05",
    "iat": ISSUED_AT,
    "exp": ISSUED_AT + 30 * 86_400,
    "jti": str(uuid.UUID(int=5)),
}
ALLOWED = {"mimetype": "application/gzip", "contentLength": 100}


@pytest.fixture
def owner(project_url: str) -> Iterator[psycopg.Connection]:
    """Connect to it as the project's owner, who is no superuser."""
    with psycopg.connect(owners(project_url), autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def migrated(cluster_url: str) -> Iterator[psycopg.Connection]:
    """Make a project, migrate it, let two devices in, and connect as the storage server does."""
    with a_database(cluster_url) as url:
        make_project(url)
        with psycopg.connect(owners(url), autocommit=True) as connection:
            migrate(connection)
            connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-05', ''), ('pi-06', '')")
        with psycopg.connect(url, autocommit=True) as opened:
            yield opened


@pytest.fixture
def project(migrated: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Lend the migrated project to one test; what that changes is rolled back."""
    with migrated.transaction(force_rollback=True):
        yield migrated


@contextmanager
def as_device(connection: psycopg.Connection, claims: dict[str, Any] | None) -> Iterator[None]:
    """Run in a token's role with its claims set, and roll back."""
    with connection.transaction(force_rollback=True):
        role = (claims or {}).get("role", "anon")
        connection.execute(psycopg.sql.SQL("set local role {}").format(psycopg.sql.Identifier(role)))
        connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims) if claims else ""])
        yield


def may_store(
    connection: psycopg.Connection,
    name: str = NAME,
    *,
    bucket: str = "scout-ingest",
    claims: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> bool:
    """Ask as the storage server does; False when the policy refuses the row."""
    claims = CLAIMS if claims is None else claims
    values = [bucket, name, "v1", Jsonb(ALLOWED if metadata is None else metadata), claims.get("sub")]
    try:
        with as_device(connection, claims):
            connection.execute(PROBE, values)
    except psycopg.errors.InsufficientPrivilege as refused:
        if "row-level security" not in str(refused):
            raise
        return False
    return True


def test_a_device_may_store_into_its_own_folder(project: psycopg.Connection) -> None:
    """The one thing that its token is for, in every form that a file may have."""
    names = [NAME, "2026-01-20/pi-05/a.jsonl", "2000-01-01/pi-05/a.json", "2099-12-31/pi-05/A-1_2.zst"]
    refused = [name for name in names if not may_store(project, name)]

    assert refused == []


@pytest.mark.parametrize(
    "name",
    [
        "2026-01-20/pi-06/day.jsonl.gz",
        "2026-01-20/PI-05/day.jsonl.gz",
        "2026-01-20/day.jsonl.gz",
        "day.jsonl.gz",
        "2026-01-20/pi-05/deeper/day.jsonl.gz",
        "2026-01-20/pi-05/",
        "2026-01-20/pi-05/../pi-06/day.jsonl.gz",
        "2026-01-20/pi-05/../day.jsonl.gz",
        "2026-01-20//pi-05/day.jsonl.gz",
        "/2026-01-20/pi-05/day.jsonl.gz",
        "./2026-01-20/pi-05/day.jsonl.gz",
        "2026-99-99/pi-05/day.jsonl.gz",
        "2026-02-29/pi-05/day.jsonl.gz",
        "1999-12-31/pi-05/day.jsonl.gz",
        "2100-01-01/pi-05/day.jsonl.gz",
        "26-01-20/pi-05/day.jsonl.gz",
        "2026-01-20\n/pi-05/day.jsonl.gz",
        "2026-01-20/pi-05/.day.jsonl.gz",
        "2026-01-20/pi-05/day.exe",
        "2026-01-20/pi-05/day.jsonl.gz\n",
        "2026-01-20/pi-05/a day.jsonl",
        "2026-01-20/pi-05/" + "a" * 124 + ".json",
        "",
    ],
)
def test_no_other_name_is_let_in(project: psycopg.Connection, name: str) -> None:
    """Another device's folder, no real day, a path with tricks: refused before a byte is stored."""
    assert may_store(project)
    assert not may_store(project, name)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "pi-06"},
        {"sub": "pi-99"},
        {"sub": None},
        {"sub": 5},
        {"iat": None},
        {"exp": None},
        {"iat": "soon"},
        {"exp": ISSUED_AT + 31 * 86_400},
        {"exp": "1e400"},
    ],
)
def test_no_other_token_is_let_in(project: psycopg.Connection, claims: dict[str, Any]) -> None:
    """Another subject, an unknown one, none at all, or times that a device's token may not have."""
    assert may_store(project)
    assert not may_store(project, claims=CLAIMS | claims)


@pytest.mark.parametrize("length", [None, 0, -1, 52_428_801, "many", 10**30])
def test_an_object_has_1_byte_to_50_mib(project: psycopg.Connection, length: object) -> None:
    """Chunked transfer announces no length, and would pass the server's own limit."""
    assert may_store(project, metadata={"contentLength": 52_428_800})
    assert may_store(project, metadata={"contentLength": 1})
    assert not may_store(project, metadata={} if length is None else {"contentLength": length})


def test_a_revocation_counts_at_the_next_request(project: psycopg.Connection) -> None:
    """Of a device, of all its older tokens, or of one token."""
    assert may_store(project)
    project.execute("update scout_edge.devices set revoked_at = now() where device_id = 'pi-05'")
    revoked = may_store(project)
    project.execute(
        "update scout_edge.devices set revoked_at = null, tokens_valid_from = to_timestamp(%s)", [ISSUED_AT]
    )
    just_issued = may_store(project)
    project.execute("update scout_edge.devices set tokens_valid_from = to_timestamp(%s)", [ISSUED_AT + 1])
    outdated = may_store(project)
    project.execute("update scout_edge.devices set tokens_valid_from = '-infinity'")
    project.execute(
        "insert into scout_edge.tokens values (%s, 'pi-05', 'edge_uploader', now(), now(), now())", [CLAIMS["jti"]]
    )
    token_revoked = may_store(project)

    assert (revoked, just_issued, outdated, token_revoked) == (False, True, False, False)
    assert may_store(project, claims=CLAIMS | {"jti": str(uuid.UUID(int=6))})


def test_no_other_bucket_is_let_in(project: psycopg.Connection) -> None:
    """The role exists in the whole project."""
    project.execute("insert into storage.buckets (id, name) values ('photos', 'photos')")

    assert may_store(project)
    assert not may_store(project, bucket="photos")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_other_roles_gain_nothing(project: psycopg.Connection, role: str) -> None:
    """Our policies are for edge_uploader, and the functions behind them open to it alone."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may_upload"), as_device(project, {"role": role}):
        project.execute("select scout_edge.may_upload('a', '{}')")


@pytest.mark.parametrize(
    "statement",
    [
        "select name from storage.objects",
        "update storage.objects set name = 'x'",
        "delete from storage.objects",
        "insert into storage.objects (bucket_id, name, owner) values ('scout-ingest', 'x', gen_random_uuid())",
        "insert into storage.objects (bucket_id, name) values ('scout-ingest', 'x') on conflict do nothing returning 1",
        "select id from storage.buckets",
        "select device_id from scout_edge.devices",
        "select key from scout_bronze.files",
        "select scout_edge.token_refusal('edge_uploader', 'pi-05', 0, '')",
    ],
)
def test_a_device_may_do_nothing_else(project: psycopg.Connection, statement: str) -> None:
    """Not read, not replace, not remove, although a policy of the project's own lets everybody in."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege), as_device(project, CLAIMS):
        project.execute(statement)


def test_a_device_calls_home_through_the_projects_rest_layer(project: psycopg.Connection) -> None:
    """As PostgREST does: in the role of the token."""
    with as_device(project, CLAIMS):
        row = project.execute("select public.heartbeat(%s)", [Jsonb({"nonce": "n"})]).fetchone()

    assert row is not None
    assert row[0]["nonce"] == "n"


def test_the_bucket_is_private(project: psycopg.Connection) -> None:
    """Sales are nobody else's to read."""
    assert project.execute("select public, file_size_limit from storage.buckets").fetchall() == [(False, 52_428_800)]


def test_a_public_bucket_is_refused(project_url: str, owner: psycopg.Connection) -> None:
    """One that is there already is not changed behind its owner's back."""
    with psycopg.connect(project_url, autocommit=True) as superuser:
        superuser.execute(
            "insert into storage.buckets (id, name, public) values ('scout-ingest', 'scout-ingest', true)"
        )

    with pytest.raises(Misconfigured, match=r"supabase/010_uploads: the bucket scout-ingest is public\. .*private"):
        migrate(owner)


def test_migrating_a_project_twice_applies_nothing_twice(owner: psycopg.Connection) -> None:
    """Nor does a plan change anything."""
    planned = [file.label for file in plan(owner).files]
    applied = migrate(owner)

    assert list(applied) == planned
    assert "supabase/010_uploads" in applied
    assert migrate(owner) == ()


def test_a_plain_database_gets_no_policies_until_storage_appears(project_url: str, owner: psycopg.Connection) -> None:
    """A server that is alone at first may become a project's later."""
    with psycopg.connect(project_url, autocommit=True) as superuser:
        superuser.execute("drop schema storage cascade")
        applied = migrate(owner)
        superuser.execute(STORAGE)

        assert "supabase/010_uploads" not in applied
        assert migrate(owner) == ("supabase/010_uploads",)


def test_who_migrates_may_become_the_devices_role(owner: psycopg.Connection) -> None:
    """Our own heartbeat endpoint does so for each request; since PostgreSQL 16 that must be granted."""
    migrate(owner)
    with owner.transaction(force_rollback=True):
        owner.execute("set local role edge_uploader")
        role = owner.execute("select current_user").fetchone()

    assert role == ("edge_uploader",)


def test_the_owner_counts_what_is_bought_together(project_url: str, owner: psycopg.Connection) -> None:
    """A refresh needs no more than to own what it fills."""
    migrate(owner)
    items = [{"sku": "a", "total_price": 1}, {"sku": "b", "total_price": 1}]
    land(owner, [record(n, {"transaction_id": n, "store_id": "1", "peso_value": 2, "items": items}) for n in range(10)])

    with open_pool(owners(project_url)) as pool:
        run_etl(pool)
        assert refresh(pool)

    found = owner.execute("select sku_a, sku_b, transactions_together from scout.gold_basket_patterns").fetchall()
    assert found == [("a", "b", 10)]


def test_an_unmigrated_project_says_what_it_refuses(owner: psycopg.Connection) -> None:
    """A number that another migration of the project took is named before anything is changed."""
    owner.execute("create schema supabase_migrations")
    owner.execute("create table supabase_migrations.schema_migrations as select '010' as version, 'profiles' as name")

    with pytest.raises(Misconfigured, match=r"010_edge\.sql: number 010 was used"):
        migrate(owner)
    assert owner.execute("select to_regclass('scout_edge.devices')").fetchone() == (None,)


WHO = ("anon", "authenticated", "edge_uploader", "service_role", "authenticator", "scout_analyst", "newcomer")
OURS = ("scout", "scout_bronze", "scout_edge", "scout_gold", "public")
REACHED = """
select role, nspname || '.' || name, may_write
from unnest(%(roles)s::text[]) as role
cross join lateral (
    select pronamespace as schema, proname as name, has_function_privilege(role, oid, 'execute') as may,
        false as may_write
    from pg_proc
    union all
    select relnamespace, relname, has_any_column_privilege(role, oid, 'select'),
        has_table_privilege(role, oid, 'insert, update, delete, truncate, references, trigger')
        or has_any_column_privilege(role, oid, 'insert, update, references')
    from pg_class
    where relkind in ('r', 'p', 'v', 'm', 'f')
    union all
    select relnamespace, relname, false, has_sequence_privilege(role, oid, 'usage, select, update')
    from pg_class
    where relkind = 'S'
) as thing
join pg_namespace on pg_namespace.oid = schema
where nspname = any(%(schemas)s) and (may or may_write) and has_schema_privilege(role, schema, 'usage')
"""
GENEROUS = """
create role newcomer;
alter default privileges for role project_owner grant all on tables to public, anon, authenticated;
alter default privileges for role project_owner grant all on sequences to public, anon, authenticated;
alter default privileges for role project_owner grant all on functions to public, anon, authenticated;
"""
OPENED = """
grant usage on schema scout, scout_bronze, scout_edge to anon, authenticated, edge_uploader, newcomer;
grant usage on schema scout_bronze, scout_edge to scout_analyst;
do $$ begin
    if to_regnamespace('scout_gold') is not null then
        grant usage on schema scout_gold to anon, authenticated, edge_uploader, newcomer;
    end if;
end $$
"""


def reached(connection: psycopg.Connection, *roles: str) -> set[tuple[str, str, bool]]:
    """Each function, table, view and sequence of ours that a role can use: role, name, whether to write."""
    asked = {"roles": list(roles), "schemas": list(OURS)}
    return set(connection.execute(REACHED, asked))


def for_analysts(connection: psycopg.Connection) -> set[str]:
    """What they ask: gold, as views and as tables, and the dimensions."""
    return {
        name
        for (name,) in connection.execute(
            """
            select nspname || '.' || relname
            from pg_class
            join pg_namespace on pg_namespace.oid = relnamespace
            where relkind in ('r', 'v', 'm')
                and (nspname = 'scout_gold' or nspname = 'scout' and relname ~ '^(gold|dim)_')
            """
        )
    }


def test_of_all_that_is_ours_each_role_reaches_only_what_it_is_for(project: psycopg.Connection) -> None:
    """Functions, tables and views, by every role: a device calls home, analysts read gold, nobody else does a thing."""
    project.execute("create role newcomer")
    owners_own = reached(project, "project_owner")
    asked = for_analysts(project)

    assert len(owners_own) > 50
    assert {name.split("_")[0] for name in asked} >= {"scout.gold", "scout.dim"}
    assert reached(project, *WHO) == {
        ("edge_uploader", "public.heartbeat", False),
        *(("scout_analyst", name, False) for name in asked),
    }


def test_what_a_project_gives_to_everybody_by_default_is_taken_back(project_url: str) -> None:
    """New tables, functions and sequences of ours are nobody's, even where the schemas were opened to all."""
    with psycopg.connect(project_url, autocommit=True) as superuser, superuser.transaction(force_rollback=True):
        superuser.execute(GENEROUS)
        superuser.execute("set local session authorization project_owner")
        migrate(superuser)
        superuser.execute("reset session authorization")
        superuser.execute(OPENED)
        superuser.execute("grant usage on schema public to anon, authenticated")

        assert reached(superuser, *(set(WHO) - {"service_role", "authenticator"})) == {
            ("edge_uploader", "public.heartbeat", False),
            ("edge_uploader", "scout_edge.may_upload", False),
            *(("scout_analyst", name, False) for name in for_analysts(superuser)),
        }


def test_what_is_the_projects_own_keeps_its_rights(owner: psycopg.Connection) -> None:
    """A table and a function that lie beside ours, in a schema that the project opened."""
    owner.execute("create schema scout; create table scout.notes (text text); grant select on scout.notes to anon")
    owner.execute("create function scout.own() returns integer language sql return 1")
    migrate(owner)
    owner.execute("grant usage on schema scout to anon")

    assert reached(owner, "anon") == {("anon", "scout.notes", False), ("anon", "scout.own", False)}


def test_an_analyst_reads_all_of_it(project: psycopg.Connection) -> None:
    """Not only by the catalogue: a view asks for the rights of whoever asks it to call the functions it names."""
    project.execute("set local role scout_analyst")
    for name in for_analysts(project):
        assert project.execute(sql.SQL("select * from {}").format(sql.Identifier(*name.split(".")))).description, name


@pytest.mark.usefixtures("migrated")
def test_what_is_made_anew_is_opened_anew(owner: psycopg.Connection) -> None:
    """An upgrade drops views and makes them again; the role is there already, by another database's migration."""
    migrate(owner)
    before = reached(owner, *WHO[:-1])
    owner.execute("update scout_edge.models set checksum = 'older' where name like 'gold/%'")
    applied = migrate(owner)

    assert "gold/daily_revenue" in applied
    assert ("scout_analyst", "scout.gold_daily_revenue", False) in before
    assert reached(owner, *WHO[:-1]) == before


def test_the_policy_asks_the_one_function_that_it_may(project: psycopg.Connection) -> None:
    """In a schema that a device's role can't use by name."""
    may = project.execute(
        "select proname from pg_proc where pronamespace = 'scout_edge'::regnamespace"
        " and has_function_privilege('edge_uploader', oid, 'execute')"
    )

    assert [name for (name,) in may] == ["may_upload"]


def test_migrating_names_what_a_device_reaches_only_because_everybody_may(project_url: str) -> None:
    """Functions of the project that nobody closed, a table that somebody opened, and each extension once."""
    nothing = scout_server("migrate", "--database-url", owners(project_url))
    with psycopg.connect(project_url, autocommit=True) as superuser:
        superuser.execute("create function public.leak(integer) returns integer language sql return $1")
        superuser.execute("create table public.notes (text text); grant select on public.notes to public")
        superuser.execute("create function public.closed() returns integer language sql return 1")
        superuser.execute("revoke all on function public.closed() from public")
        superuser.execute("create schema hidden; create function hidden.far() returns integer language sql return 1")
        superuser.execute("create extension btree_gist schema public")
    named = scout_server("migrate", "--database-url", owners(project_url))

    assert (nothing.returncode, "PUBLIC" in nothing.stderr) == (0, False)
    assert named.returncode == 0
    assert [line.strip() for line in named.stderr.splitlines() if line.startswith("  ")] == [
        "extension btree_gist",
        "function leak(integer)",
        "relation notes",
    ]


def test_a_project_is_backed_up_and_restored_into_another_by_its_owner(cluster_url: str, tmp_path: Path) -> None:
    """Who is no superuser: our schemas alone are taken, and what only Supabase has is made there anew."""
    (tmp_path / "backup").mkdir()
    policies = "select polname from pg_policy order by 1"
    with a_database(cluster_url) as lost, a_database(cluster_url) as other:
        for url in (lost, other):
            make_project(url)
        with psycopg.connect(owners(lost), autocommit=True) as connection:
            migrate(connection)
            connection.execute("insert into scout_edge.devices (device_id, source) values ('pi-05', '')")
            connection.execute("create table public.profiles (id int)")  # another project's
            expected = connection.execute(policies).fetchall()
        with BackupFolder(tmp_path / "backup", writing=True) as held:
            back_up(
                Source(owners(lost), None, None, os.environ), held, program="1.0", now=datetime(2026, 1, 21, tzinfo=UTC)
            )
            chosen = choose(held, None)
            bucket = FolderBucket(tmp_path / "bucket")
            restore_pieces(
                chosen,
                owners(other),
                bucket,
                environment=os.environ,
                now=chosen.manifest.made_at,
                progress=lambda _done: None,
            )
        with psycopg.connect(owners(other), autocommit=True) as connection:
            devices = connection.execute("select device_id from scout_edge.devices").fetchall()
            found = connection.execute(policies).fetchall()
            theirs = connection.execute("select to_regclass('public.profiles')").fetchone()
            left = migrate(connection)

    assert devices == [("pi-05",)]
    assert expected
    assert found == expected
    assert theirs == (None,)
    assert left == ()
