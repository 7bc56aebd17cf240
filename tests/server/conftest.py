"""One PostgreSQL for the whole run, and a database of its own for each test.

Databases are copied from a migrated template, which is many times quicker than migrating.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bucket_forms import FORMS, S3_KEYS, Form, folder_form, moto_server, s3_client, s3_form, supabase_form
from ceph import ceph_gateway
from clusters import a_database, a_postgres, create_database
from projects import ROLES, make_project
from psycopg_pool import ConnectionPool
from supabase_stand_in import StandIn, running_stand_in

from server.buckets.folder import FolderBucket
from server.database import open_pool
from server.schema import migrate

TEMPLATE = "scout_template"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start the PostgreSQL of this run."""
    with a_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """Make the migrated database of which each test gets a copy."""
    url = create_database(postgres_url, TEMPLATE, "template0")
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
    return TEMPLATE


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """Make a database with nothing in it."""
    with a_database(postgres_url) as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """Make a migrated database."""
    with a_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """Start another PostgreSQL with a project's roles: they belong to a cluster, and other tests must not meet them."""
    with a_postgres() as url, psycopg.connect(url, autocommit=True) as superuser:
        superuser.execute(ROLES)
        yield url


@pytest.fixture
def project_url(cluster_url: str) -> Iterator[str]:
    """Make a project's database as Supabase hands it over; yield the superuser's URL of it."""
    with a_database(cluster_url) as url:
        make_project(url)
        yield url


@pytest.fixture
def pool(database_url: str) -> Iterator[ConnectionPool]:
    """Open connections to the test's own database."""
    with open_pool(database_url) as opened:
        yield opened


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Open one connection, in autocommit, to the test's own database."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    """Make an empty bucket."""
    return FolderBucket(tmp_path / "bucket")


@pytest.fixture(scope="session")
def moto() -> Iterator[Any]:
    """Start the S3 server of every run; give a client of it."""
    with moto_server() as url, s3_client(url) as client:
        yield client


@pytest.fixture(scope="session")
def ceph() -> Iterator[Any]:
    """Start Ceph's S3 server; give a client of it."""
    # Its sockets want a short path.
    folder = Path(tempfile.mkdtemp(prefix="scout-ceph-"))
    try:
        with ceph_gateway(folder, S3_KEYS) as url, s3_client(url) as client:
            yield client
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    """Start the stand-in for Supabase Storage."""
    with running_stand_in() as running:
        yield running


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Form]:
    """Open an empty bucket of each form in turn."""
    opened = {
        "folder": lambda: folder_form(tmp_path / "bucket of a form"),
        "moto": lambda: s3_form(request.getfixturevalue("moto")),
        "supabase": lambda: supabase_form(request.getfixturevalue("stand_in")),
        "ceph": lambda: s3_form(request.getfixturevalue("ceph")),
    }
    with opened[request.param]() as given:
        yield given
