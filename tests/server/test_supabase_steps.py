"""deploy/supabase: what the steps for a project find and prove, on projects that lack each thing in turn.

The files run in psql, as an operator runs them. No hosted project was tried.
"""

import csv
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from clusters import a_database
from programs import CLEAN
from projects import make_project, owners

from server.postgres_binaries import find_binaries
from server.schema import migrate

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "supabase"
ALL = 14
BE_NO_MEMBER = "revoke supabase_storage_admin from project_owner;"
BE_MEMBER = "grant supabase_storage_admin to project_owner"
BUCKET = "insert into storage.buckets (id, name, public, file_size_limit) values ('scout-ingest', 'scout-ingest', "

LACKS = {
    "may create schemas": ("revoke create on database {database} from project_owner", ""),
    "may create functions in public": ("revoke create on schema public from project_owner", ""),
    "may create the devices' and the analysts' role": (
        "drop role if exists edge_uploader, scout_analyst; alter role project_owner nocreaterole",
        "alter role project_owner createrole",
    ),
    "the REST layer's role is there": (
        "alter role authenticator rename to other",
        "alter role other rename to authenticator",
    ),
    "the REST layer serves the schema public": (
        "alter role authenticator set pgrst.db_schemas = 'api, not_public'",
        "alter role authenticator reset pgrst.db_schemas",
    ),
    "Storage is there": ("drop schema storage cascade", ""),
    "Storage is new enough": ("alter table storage.objects drop column metadata", ""),
    "Storage asks for policies": ("alter table storage.objects disable row level security", ""),
    "may open Storage to the devices' role": (
        BE_NO_MEMBER + "revoke grant option for insert on storage.objects from project_owner cascade",
        BE_MEMBER,
    ),
    "may make policies in Storage": (BE_NO_MEMBER, BE_MEMBER),
    "may make the bucket": (BE_NO_MEMBER + "revoke insert on storage.buckets from project_owner", BE_MEMBER),
    "the bucket scout-ingest is private, or not there yet": (BUCKET + "true, null)", ""),
    "the bucket takes 50 MiB of any type, or is not there yet": (BUCKET + "false, 1048576)", ""),
}
"""What takes each thing away from a project, and what gives back of it what belongs to the whole cluster."""


@pytest.fixture(scope="module")
def migrated(cluster_url: str) -> Iterator[str]:
    """Make a project that was migrated, to be copied; yield its name."""
    with a_database(cluster_url) as url:
        make_project(url)
        with psycopg.connect(owners(url), autocommit=True) as connection:
            migrate(connection)
            name = connection.info.dbname
        yield name


def psql(url: str, text: str, *, read_only: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a file's text as an operator does, but with output that can be read exactly."""
    program = find_binaries(None, CLEAN).folder / "psql"
    options = "-c default_transaction_read_only=on" if read_only else ""
    return subprocess.run(
        [program, url, "--csv", "--no-psqlrc", "--file", "-"],
        input=text,
        env=CLEAN | {"PGOPTIONS": options},
        capture_output=True,
        text=True,
        check=False,
    )


def read(name: str) -> str:
    """One of the files."""
    return (FOLDER / name).read_text()


def check(url: str, text: str = "") -> dict[str, tuple[str, str]]:
    """What check.sql says of each requirement, in its order: whether the project has it, and what to do."""
    done = psql(url, text or read("check.sql"), read_only=True)
    assert done.returncode == 0, done.stderr
    header, *rows = csv.reader(done.stdout.splitlines())
    assert header == ["requirement", "has it", "what to do"]
    assert len(rows) == ALL
    return {requirement: (has, todo) for requirement, has, todo in rows}


def verify(url: str) -> tuple[int, dict[str, str]]:
    """The exit status of verify.sql, and what was not as it should be."""
    done = psql(url, read("verify.sql"))
    rows = list(csv.reader(done.stdout.splitlines()))[1:]
    assert len(rows) == ALL, done.stderr
    return done.returncode, {what: found for what, should, found, judged in rows if judged != "well"}


def execute(url: str, statements: str) -> None:
    """Run as the superuser."""
    with psycopg.connect(url, autocommit=True) as superuser:
        if statements:
            superuser.execute(statements.format(database=superuser.info.dbname).encode())


def test_a_project_that_has_everything_is_told_so_migrates_and_holds_a_device_to_what_it_may(project_url: str):
    """By its owner; what is checked again afterwards is as well, and nothing of the proof is left."""
    owner = owners(project_url)
    before = check(owner)
    with psycopg.connect(owner, autocommit=True) as connection:
        migrate(connection)
        proved = verify(owner)
        left = connection.execute("select count(*) from scout_edge.devices").fetchone()

    assert set(before.values()) == {("yes", "")}
    assert check(owner) == before
    assert proved == (0, {})
    assert left == (0,)


@pytest.mark.parametrize("lacking", LACKS)
def test_what_a_project_lacks_is_named_before_anything_is_changed(project_url: str, lacking: str):
    """First, with what to do; what else it has is found as well."""
    away, back = LACKS[lacking]
    execute(project_url, away)
    try:
        found = check(owners(project_url))
    finally:
        execute(project_url, back)
    others = {requirement for requirement, (has, _) in found.items() if has == "NO"} - {lacking}
    has, todo = found[lacking]

    assert has == ("?" if lacking == "may make policies in Storage" else "NO")
    assert next(iter(found)) == lacking
    assert len(todo) > 20
    assert others == set()


def test_an_older_postgresql_is_named(project_url: str):
    """There is none here that is older than 15: asked for more, it is this one."""
    found = check(owners(project_url), read("check.sql").replace("150000", "990000"))

    assert found["PostgreSQL 15 or newer"][0] == "NO"


@pytest.mark.parametrize("lacking", [name for name, (away, _) in LACKS.items() if "project_owner" in away])
def test_what_is_said_to_be_done_helps(project_url: str, lacking: str):
    """The statement that it names, run as it says, is what was missing."""
    away, back = LACKS[lacking]
    execute(project_url, away)
    try:
        todo = check(owners(project_url))[lacking][1]
        execute(project_url, re.sub(r"^.*?(as [a-z ]+[Ss]torage|as [a-z ]*superuser|as postgres|or): ", "", todo))
        helped = check(owners(project_url))[lacking]
    finally:
        execute(project_url, back)

    assert helped[0] == "yes"


@pytest.mark.parametrize("bucket", ["true, null)", "false, 1048576)", ""])
def test_the_bucket_is_made_as_devices_need_it(project_url: str, bucket: str):
    """A public one becomes private and a narrow one wide; where there is none, one is made; twice is as once."""
    execute(project_url, bucket and BUCKET + bucket)
    for _ in range(2):
        assert psql(project_url, read("bucket.sql")).returncode == 0
    with psycopg.connect(project_url) as superuser:
        made = superuser.execute("select public, file_size_limit, allowed_mime_types from storage.buckets").fetchall()

    assert made == [(False, 52_428_800, None)]
    assert {has for has, _ in check(owners(project_url)).values()} == {"yes"}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (
            "alter table storage.objects disable row level security",
            {"stores into another device's folder", "stores more than 50 MiB", "stores while it is revoked"},
        ),
        ("drop policy scout_edge_nothing_else on storage.objects", {"stores into another device's folder"}),
        (
            "drop policy scout_edge_may_upload on storage.objects; drop policy everybody on storage.objects",
            {"stores into its own folder"},
        ),
        ("grant select on storage.objects to public", {"reads what is stored"}),
        ("revoke execute on function public.heartbeat(jsonb) from edge_uploader", {"calls home"}),
        (
            "grant usage on schema scout_edge to public; grant select on scout_edge.devices to public",
            {"lists the devices"},
        ),
    ],
)
def test_a_project_that_lets_a_device_do_more_or_less_is_found_out(
    cluster_url: str, migrated: str, change: str, wrong: set[str]
):
    """And the exit status says so."""
    with a_database(cluster_url, migrated) as url:
        execute(url, change)
        status, found = verify(owners(url))

    assert status == 3
    assert found.keys() >= wrong


def test_the_devices_config_leads_to_the_project_and_to_the_server():
    """As README.md writes it: sales and calls home to the project, tokens from the server."""
    (text,) = re.findall(r"```toml\n(.*?)```", read("README.md"), re.DOTALL)
    server = tomllib.loads(text)["server"]

    assert server["base_url"] == "https://sales.example.com"
    assert server["bucket_url"].endswith(".supabase.co/storage/v1/object/scout-ingest")
    assert server["heartbeat_url"].endswith(".supabase.co/rest/v1/rpc/heartbeat")
    assert server["token_url"] == "https://sales.example.com/oauth/token"
    assert server["api_key"]
