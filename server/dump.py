"""The database out of PostgreSQL and into another one, by PostgreSQL's own pg_dump and pg_restore.

May be relied on:
- A dump is one moment of the database, and what is counted of it is of the same moment. Nobody waits for it.
- It is restored whole or not at all, into a database that holds nothing of ours.
- No password is in a command line, and none of it goes across a network unencrypted that asks for TLS: the programs
  that come with us know no TLS, and are only used on this machine.
- Which migrations a dump has is not in it, but told beside it: the ledger may be another project's, too.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from server import postgres_binaries
from server.database import named_queries
from server.errors import Misconfigured, ServerError
from server.schema import Migrated, make_roles, migrate, migrated, take_over

SCHEMAS = ("scout", "scout_adopted", "scout_before", "scout_bronze", "scout_edge", "scout_gold")
"""Ours. Of a given database nothing else is dumped: what other projects have there is theirs."""

_LEDGER_SCHEMA = "supabase_migrations"

LOCK_WAIT_MS = 300_000
"""For a table that somebody rewrites just now, as a migration may."""

_SETS_TIMEOUT = 17
_TIMEOUT_SETTING = b"SET transaction_timeout = "
"""At the head of what pg_restore writes from that version on; no older server knows it."""

_ERROR = re.compile(r'pg_\w+: error: (COPY failed for table "[^"]*"|.*)|ERROR:  [0-9A-Z]{5}')

_QUERIES = named_queries("backup")


class DumpFailed(ServerError):
    """PostgreSQL's program did not do it; the message says why, in its words."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of the database that other sessions may see as long as ours looks at it, and what it holds."""

    snapshot: str
    postgres: int  # the major version of the pg_dump that fits its server
    migrations: list[Migrated]
    roles: list[str]  # that it speaks of
    rows: dict[str, int]


@contextmanager
def a_moment(url: str, environment: Mapping[str, str]) -> Iterator[Moment]:
    """Hold a moment of the database. Raises Misconfigured where no pg_dump fits."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        program = find_program("pg_dump", _server_major(connection), url, environment)
        yield Moment(
            snapshot=_snapshot(connection),
            postgres=_major(program),
            migrations=migrated(connection),
            roles=[name for (name,) in connection.execute(_QUERIES["roles"])],
            rows=_rows(connection),
        )


def note_backup(url: str) -> None:
    """Note in the database that a backup of it is complete, for whoever watches. Raises psycopg.Error."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_QUERIES["note_backup"])


@contextmanager
def dumped(url: str, moment: Moment, *, everything: bool, environment: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """Give the dump of a moment as it is made: of all schemas, or of ours. Only after the `with` it is complete.

    Raises DumpFailed.
    """
    program = find_program("pg_dump", moment.postgres, url, environment)
    words = ["--format=custom", f"--snapshot={moment.snapshot}", f"--lock-wait-timeout={LOCK_WAIT_MS}"]
    words += [f"--exclude-schema={_LEDGER_SCHEMA}"] if everything else [f"--schema={name}" for name in SCHEMAS]
    with tempfile.TemporaryFile() as errors:
        # Through a pipe, so that it ends with us, however we end.
        command, variables = _command(program, url, words, environment)
        process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout
        try:
            with process.stdout:
                yield process.stdout
        except BaseException:
            process.terminate()
            raise
        finally:
            status = process.wait()
        if status:
            errors.seek(0)
            raise DumpFailed(f"it could not be dumped: {_words(errors.read())}")


def restore(url: str, dump: Path, moment: Moment, environment: Mapping[str, str]) -> list[str]:
    """Fill a database with what was dumped of that moment, and bring it to this version; return the roles made.

    It must hold nothing of ours: see refuse_filled. Raises Misconfigured where no pg_restore fits, and DumpFailed.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        make_roles(connection)
        roles = _make_missing(connection, moment.roles)
        major = max(moment.postgres, _server_major(connection))
        program = find_program("pg_restore", major, url, environment)
        fill = _fill_older if _major(program) >= _SETS_TIMEOUT > _server_major(connection) else _fill
        fill(program, url, dump, environment)
        rows = {name: count for name, count in _rows(connection).items() if name in moment.rows}
        if rows != moment.rows:
            raise DumpFailed(f"the restored database holds {rows}, and the dump was made of {moment.rows}.")
        with connection.transaction():
            take_over(connection, moment.migrations)
        migrate(connection)
    return roles


def refuse_filled(connection: psycopg.Connection) -> None:
    """Raise Misconfigured unless the database holds nothing of ours."""
    there = [name for (name,) in connection.execute(_QUERIES["schemas_there"], {"names": list(SCHEMAS)})]
    if there:
        raise Misconfigured(
            f"the database holds something in {', '.join(there)} already, and nothing is ever restored over it: give "
            "a database in which these schemas are not there."
        )


def find_program(name: str, major: int, url: str, environment: Mapping[str, str]) -> Path:
    """Find the oldest pg_dump or pg_restore that is not older than `major`.

    Raises Misconfigured, saying which package to install, when there is none.
    """
    fitting = [(version, path) for path in _candidates(name, url, environment) if (version := _major(path)) >= major]
    if not fitting:
        raise Misconfigured(
            f"no {name} of PostgreSQL {major} or newer is here: install Debian's package postgresql-client-{major}, or "
            "a newer one, or set SCOUT_POSTGRES_BIN to the folder that holds it."
        )
    return min(fitting, key=lambda found: found[0])[1]


def _fill(program: Path, url: str, dump: Path, environment: Mapping[str, str]) -> None:
    words = ["--single-transaction", "--no-owner", str(dump)]
    command, variables = _command(program, url, words, environment)
    done = subprocess.run(command, env=variables, capture_output=True, check=False)
    _refuse_failed(done.returncode, done.stderr)


def _fill_older(program: Path, url: str, dump: Path, environment: Mapping[str, str]) -> None:
    """Fill a server that doesn't know one setting of this pg_restore's: by psql, and without the setting."""
    words = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=sqlstate"]
    command, variables = _command(program.with_name("psql"), url, words, environment)
    reading = [str(program), "--no-owner", "--file=-", str(dump)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(reading, env=variables, stdout=subprocess.PIPE, stderr=errors) as reader,
        subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=errors, stderr=errors) as writer,
    ):
        assert reader.stdout
        assert writer.stdin
        is_set = False
        # What psql doesn't want any more, it says itself.
        with suppress(BrokenPipeError), writer.stdin:
            for line in reader.stdout:
                if is_set or not line.startswith(_TIMEOUT_SETTING):
                    writer.stdin.write(line)
                else:
                    is_set = True
            if reader.wait():
                writer.kill()  # the end of what it got is not the end of the dump
        status = writer.wait() or reader.wait()
        errors.seek(0)
        _refuse_failed(status, errors.read())


def _refuse_failed(status: int, said: bytes) -> None:
    if status:
        raise DumpFailed(f"the dump could not be restored, and the database is as it was: {_words(said)}")


def _candidates(name: str, url: str, environment: Mapping[str, str]) -> list[Path]:
    folders = [Path(environment["SCOUT_POSTGRES_BIN"])] if environment.get("SCOUT_POSTGRES_BIN") else []
    if _is_on_this_machine(url):
        folders += filter(None, [postgres_binaries.wheel_folder()])
    folders += [Path(folder) for folder in environment.get("PATH", os.defpath).split(os.pathsep)]
    folders += sorted(postgres_binaries.DEBIAN_FOLDER.glob("*/bin"))
    return [folder / name for folder in folders if os.access(folder / name, os.X_OK)]


def _is_on_this_machine(url: str) -> bool:
    given = conninfo_to_dict(url)
    host = str(given.get("hostaddr") or given.get("host") or "")
    return not host or host.startswith(("/", "127.")) or host in {"localhost", "::1"}


def _major(program: Path) -> int:
    found = re.search(r"\d+", postgres_binaries.run([program, "--version"], None, Path("/")).stdout)
    return int(found[0]) if found else 0


def _command(
    program: Path, url: str, words: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    given = conninfo_to_dict(url)
    password = given.pop("password", None)
    variables = {**environment, "LC_ALL": "C"} | ({"PGPASSWORD": str(password)} if password else {})
    target = make_conninfo("", **{key: str(value) for key, value in given.items() if value is not None})
    return [str(program), "--no-password", f"--dbname={target}", *words], variables


def _make_missing(connection: psycopg.Connection, names: Sequence[str]) -> list[str]:
    there = {name for (name,) in connection.execute(_QUERIES["roles_there"], {"names": list(names)})}
    missing = [name for name in names if name not in there]
    for name in missing:
        connection.execute(sql.SQL(_QUERIES["make_role"]).format(name=sql.Identifier(name)))
    return missing


def _rows(connection: psycopg.Connection) -> dict[str, int]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_QUERIES["rows"]).fetchone() or {}


def _snapshot(connection: psycopg.Connection) -> str:
    row = connection.execute(_QUERIES["export_snapshot"]).fetchone()
    assert row is not None, "a snapshot is one row"
    return str(row[0])


def _server_major(connection: psycopg.Connection) -> int:
    return connection.info.server_version // 10_000


def _words(said: bytes) -> str:
    """What went wrong, in the program's words: of a table that was not taken only its name, as the rest quotes rows."""
    found = _ERROR.search(said.decode(errors="replace"))
    return found[0] if found else "pg_dump or pg_restore ended without a word."
