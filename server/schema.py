"""Bringing a database to this version's schema: `scout-server migrate`.

May be relied on:
- A migration is applied whole or not at all, once, by one process at a time, and recorded with its checksum in
  the ledger that Supabase's own tool reads.
- A database that a newer version has migrated is refused, and left as it is.
- A model (a view or function that may be replaced) is applied again whenever its text, or that of one before
  it, changed.
- Nothing is replaced or dropped that this project did not make: what stands in the way is listed, and nothing
  is changed, until an operator lets it be moved aside (server/clashes.py).
- What only Supabase has (bucket, policies) is made where its storage schema is, whenever that appears.
- What is ours is nobody else's to use, whatever the database gives to everybody by default: only analysts may read
  gold and the dimensions, and a file says so itself where a device's role may call a function.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql as query

from server import clashes
from server.database import SQL, named_queries
from server.errors import Misconfigured

MODEL_FOLDERS = ("models/edge", "models/bronze", "models/silver", "models/gold", "models/scout_gold")
"""In this order, files by name: a model may use those before it."""

SUPABASE_FOLDER = "supabase"
"""After them, where Supabase's storage server keeps its tables in this database."""

ROLES = ("015_roles", "110_analyst")
"""The migrations that make what belongs to the cluster, and is in no dump of a database. Each may be repeated."""

_MIGRATION = re.compile(r"(\d+)_(\w+)\.sql")
_QUERIES = named_queries("database")


class NewerSchema(Misconfigured):
    """A newer version has migrated this database."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """A migration of ours as the ledger has it."""

    version: str
    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of SQL that is about to be applied. `version` is a migration's number; None for a model."""

    version: str | None
    name: str
    text: str
    is_applied: bool = False  # by Supabase's own tool, which keeps no checksum

    @property
    def label(self) -> str:
        """What it is called when it is reported."""
        return f"{self.version}_{self.name}" if self.version else self.name

    @property
    def checksum(self) -> str:
        """sha256 of its text, in hex."""
        return _checksum(self.text)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `migrate` would do: the files it would apply, and what stands in their way."""

    migrations: tuple[File, ...]
    models: tuple[File, ...]
    clashes: tuple[clashes.Clash, ...]
    rights: str  # the statement that says, last of all, who may use what

    @property
    def files(self) -> tuple[File, ...]:
        """The files to apply, in their order."""
        return (*(file for file in self.migrations if not file.is_applied), *self.models)

    def statements(self) -> list[str]:
        """The SQL, as it would be executed; without the notes of what was applied."""
        return [
            *clashes.statements(self.clashes),
            _QUERIES["make_ledger"],
            *(f"-- {file.label}\n{file.text}" for file in self.files),
            f"{self.rights};",
        ]


def plan(connection: psycopg.Connection, sql: Path = SQL) -> Plan:
    """Find out what is to be done, and change nothing.

    Raises Misconfigured when an applied migration was edited since, or when another project's migration has
    its number.
    """
    migrations = tuple(_waiting_migrations(connection, sql))
    models = tuple(_changed_models(connection, sql))
    texts = [file.text for file in migrations if not file.is_applied]
    texts += [file.text for file in _unknown_models(connection, models)]
    return Plan(migrations, models, clashes.find(connection, texts), _rights(sql))


def migrate(connection: psycopg.Connection, sql: Path = SQL, *, move_aside: bool = False) -> tuple[str, ...]:
    """Bring the database to this version's schema; return the names of the files applied.

    Takes a connection in autocommit. `move_aside`: what stands in the way goes to the schema scout_before.
    Raises Misconfigured, with nothing changed, for what `plan` refuses and for clashes that may not be moved.
    """
    connection.execute(_QUERIES["lock_migrations"])
    try:
        due = plan(connection, sql)
        if due.clashes and not move_aside:
            raise Misconfigured(clashes.explain(due.clashes))
        clashes.move_aside(connection, due.clashes)
        connection.execute(_QUERIES["make_ledger"])
        for migration in due.migrations:
            _apply_migration(connection, migration)
        _apply_models(connection, due)
        return tuple(file.label for file in due.files)
    finally:
        if not connection.broken:
            connection.execute(_QUERIES["unlock_migrations"])


def migrated(connection: psycopg.Connection) -> list[Migrated]:
    """The migrations of ours that this database has, in their order."""
    return [
        Migrated(version, name, checksum)
        for version, (name, checksum) in sorted(_ledger(connection).items())
        if checksum is not None
    ]


def refuse_newer(applied: Iterable[Migrated], sql: Path = SQL) -> None:
    """Raise NewerSchema when one of these is not known to this version."""
    known = {path.name.partition("_")[0] for path in (sql / "migrations").glob("*.sql")}
    newer = [f"{one.version}_{one.name}" for one in applied if one.version not in known]
    if newer:
        raise NewerSchema(
            f"a newer version of scout-server has migrated this database ({', '.join(newer)}): install that version "
            "again. To go back all the same, restore the backup from before the upgrade. Nothing was changed."
        )


def make_roles(connection: psycopg.Connection, sql: Path = SQL) -> None:
    """See that the roles are there which a restored database speaks of."""
    for name in ROLES:
        connection.execute((sql / "migrations" / f"{name}.sql").read_bytes())


def take_over(connection: psycopg.Connection, applied: Iterable[Migrated], sql: Path = SQL) -> None:
    """Note in the ledger what a restored database has; the next `migrate` makes what no dump has.

    Takes a connection within a transaction.
    """
    connection.execute(_QUERIES["make_ledger"])
    for one in applied:
        text = (sql / "migrations" / f"{one.version}_{one.name}.sql").read_text(encoding="utf-8")
        record = {"version": one.version, "name": one.name, "text": text, "checksum": one.checksum}
        connection.execute(_QUERIES["record_migration"], record)
    connection.execute(_QUERIES["models_due"], {})


def reached_by_public(connection: psycopg.Connection) -> list[str]:
    """Name what a device's token can reach though nobody gave it: PostgreSQL lets everybody call a new function."""
    return [name for (name,) in connection.execute(_QUERIES["reached_by_public"])]


def _waiting_migrations(connection: psycopg.Connection, sql: Path) -> Iterator[File]:
    refuse_newer(migrated(connection), sql)
    applied = _ledger(connection)
    for path in sorted((sql / "migrations").glob("*.sql")):
        found = _MIGRATION.fullmatch(path.name)
        if not found:
            raise Misconfigured(f"{path}: a migration is called NUMBER_NAME.sql; rename it")
        version, name = found.groups()
        text = path.read_text(encoding="utf-8")
        if version not in applied:
            yield File(version, name, text)
            continue
        applied_name, checksum = applied[version]
        if applied_name != name:
            raise Misconfigured(
                f"{path.name}: number {version} was used in this database by another migration, "
                f"{applied_name!r}; give scout-edge a database of its own"
            )
        if checksum is None:
            yield File(version, name, text, is_applied=True)
        elif checksum != _checksum(text):
            raise Misconfigured(
                f"{path.name} was edited after it was applied to this database; restore its text and write "
                "the change as a new migration"
            )


def _ledger(connection: psycopg.Connection) -> dict[str, tuple[str, str | None]]:
    """Name and checksum of what was applied, by its number."""
    if not _is_there(connection, "supabase_migrations.schema_migrations"):
        return {}
    (has_checksums,) = connection.execute(_QUERIES["has_checksums"]).fetchone() or (False,)
    query = "applied_migrations" if has_checksums else "applied_migrations_unchecked"
    return {version: (name, checksum) for version, name, checksum in connection.execute(_QUERIES[query])}


def _changed_models(connection: psycopg.Connection, sql: Path) -> Iterator[File]:
    """Yield the first changed model and all after it.

    Those after it may stand on it: where it drops and makes a view anew, they would be gone otherwise.
    """
    applied = _applied_models(connection)
    folders = [*MODEL_FOLDERS, *([SUPABASE_FOLDER] if _is_there(connection, "storage.objects") else [])]
    is_changed = False
    for folder in folders:
        for path in sorted((sql / folder).glob("*.sql")):
            file = File(None, f"{path.parent.name}/{path.stem}", path.read_text(encoding="utf-8"))
            is_changed = is_changed or applied.get(file.name) != file.checksum
            if is_changed:
                yield file


def _unknown_models(connection: psycopg.Connection, models: tuple[File, ...]) -> list[File]:
    """Those that were never applied: what the others make is ours."""
    applied = _applied_models(connection)
    return [file for file in models if file.name not in applied]


def _applied_models(connection: psycopg.Connection) -> dict[str, str]:
    if not _is_there(connection, "scout_edge.models"):
        return {}
    return dict(connection.execute(_QUERIES["applied_models"]).fetchall())


def _apply_migration(connection: psycopg.Connection, file: File) -> None:
    with connection.transaction():
        if not file.is_applied:
            connection.execute(file.text.encode())
        record = {"version": file.version, "name": file.name, "text": file.text, "checksum": file.checksum}
        connection.execute(_QUERIES["record_migration"], record)


def _apply_models(connection: psycopg.Connection, due: Plan) -> None:
    with connection.transaction():
        connection.execute(_QUERIES["hold_etl"])
        for file in due.models:
            try:
                connection.execute(file.text.encode())
            except psycopg.errors.DependentObjectsStillExist as error:
                raise Misconfigured(
                    f"{file.name} can't be replaced, for other views stand on it: {error.diag.message_detail}. "
                    "Drop them, migrate, and make them again."
                ) from None
            except psycopg.errors.RaiseException as error:  # a file of ours refuses what it finds
                message, hint = error.diag.message_primary, error.diag.message_hint
                raise Misconfigured(f"{file.name}: {message}. {hint}") from None
            connection.execute(_QUERIES["record_model"], {"name": file.name, "checksum": file.checksum})
        # In the same transaction: a view that was made anew is never anybody's in between.
        connection.execute(due.rights.encode())


def _rights(sql: Path) -> str:
    paths = [path for folder in ("migrations", "models", SUPABASE_FOLDER) for path in (sql / folder).rglob("*.sql")]
    names = sorted({name for path in paths for _, name in clashes.made_by(path.read_text(encoding="utf-8"))})
    return query.SQL(_QUERIES["settle_rights"]).format(names=query.Literal(names)).as_string(None)


def _is_there(connection: psycopg.Connection, relation: str) -> bool:
    return bool(connection.execute(_QUERIES["relations_there"], {"names": [relation]}).fetchall())


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
