"""PostgreSQL as tests have it: a cluster of its own, and databases in it that are made and dropped.

In memory, where the machine has enough: on a disk, making a database for each test is most of what all of them cost.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from programs import data_folder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from server.embedded import DataDirectory, EmbeddedPostgres

MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of its own is made in it)
MEMORY_BYTES_MIN = 4 * 1024**3

_numbers = count(1)


@contextmanager
def a_postgres() -> Iterator[str]:
    """Start the PostgreSQL that `scout-server up` would start; yield the URL of its first database."""
    with data_folder(_quick_place()) as folder, DataDirectory(folder) as data, EmbeddedPostgres(data) as postgres:
        yield postgres.dsn


@contextmanager
def a_database(postgres_url: str, template: str = "template0") -> Iterator[str]:
    """Make a database, yield its URL, and drop it."""
    name = f"scout_test_{next(_numbers)}"
    yield create_database(postgres_url, name, template)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def create_database(postgres_url: str, name: str, template: str) -> str:
    """Make a database that stays; return its URL."""
    statement = sql.SQL("create database {} template {}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return make_conninfo(postgres_url, dbname=name)


def _quick_place() -> Path | None:
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    return MEMORY if has_room and os.access(MEMORY, os.W_OK) else None
