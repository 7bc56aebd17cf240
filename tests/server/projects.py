"""A Supabase project's database as it is handed over: roles, storage schema, and an owner who is no superuser."""

from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

ROLES, STORAGE = (Path(__file__).with_name(f"storage_{part}.sql").read_text() for part in ("roles", "schema"))


def make_project(url: str) -> None:
    """Give a database what Supabase gives to each."""
    with psycopg.connect(url, autocommit=True) as superuser:
        superuser.execute(STORAGE)
        superuser.execute(f"grant create on database {superuser.info.dbname} to project_owner")
        superuser.execute("grant create on schema public to project_owner")


def owners(url: str) -> str:
    """Return the URL by which the project's owner comes in."""
    return make_conninfo(url, user="project_owner", password="of the tests")
