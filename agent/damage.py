"""A damaged spool: what proves it, and how its files are moved aside. Nothing is ever deleted.

May be relied on
- Only proof counts: SQLite says that the content is malformed or no database, its check names errors, or the
  counts within do not add up. A disk that can't be read just now, a missing right or a lock prove nothing.
- Moving aside is finished after a cut at any step: first the intent, `spool.damaged`, is durable, with reason and
  folder; then the files move; the intent moves last, as `reason.json`.
- It waits until no other process has the spool open, and who opens it waits meanwhile: nothing is acknowledged into
  a file that was looked through already.
- A database that is gone while its WAL is there is damaged: SQLite itself would delete the WAL.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from agent.clock import Clock
from agent.errors import LocalFault, SpoolRefused
from agent.files import sync_folder, write_safely
from agent.schema import VERSION, connect_reading, is_orphaned
from agent.statements import queries_of
from wire.device import device_id_problem
from wire.record import format_instant

CHECK_WITHIN_S = 2.0
"""At start. A large spool on a slow card takes longer: the rest of the check runs beside intake."""

REASONS_KEPT = 5
_STEPS_BETWEEN_LOOKS = 1000
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CONTRADICTION = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_ERROR_CODE = re.compile(r"error code=(\d+)")
_SQL = queries_of("damage")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `finished` is False when time ran out before all was seen."""

    reasons: tuple[str, ...] = ()
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Intent:
    """That the spool's files are to be moved aside."""

    folder: str
    reason: str
    at: str


def proves_damage(error: BaseException) -> bool:
    """Whether an error of sqlite3 can only come from what the file holds."""
    code = _code(error)
    if code is None:
        # The only OperationalError without a code: text that is no UTF-8. We never wrote such.
        return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")
    return code & 0xFF in _CORRUPT or code in _CONTRADICTION


def in_words(error: BaseException) -> str:
    """What sqlite3 says, without the text that it could not decode: that may be a customer's."""
    return "text that is no UTF-8" if str(error).startswith("Could not decode") else str(error)


def find(path: Path, go_on: Callable[[], bool]) -> Finding:
    """Check a spool for damage for as long as `go_on` says so; nothing is written.

    Raises LocalFault when it can't be read for another reason than damage.
    """
    intent = _intent(path)
    if intent:
        return Finding((intent.reason,))
    try:
        if is_orphaned(path):
            return Finding(("the database is gone or empty, and its WAL is still there",))
        return _checked(path, go_on) if path.exists() and path.stat().st_size else Finding()
    except (OSError, sqlite3.Error) as error:
        if proves_damage(error):
            return Finding((in_words(error),))
        if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return Finding(finished=False)  # killed while the file was being made: opening it to write rolls back
        raise LocalFault(f"{path}: {error}. The file was left as it is; it is tried again.") from error


def _checked(path: Path, go_on: Callable[[], bool]) -> Finding:
    with closing(connect_reading(path)) as connection:
        (version,) = connection.execute("pragma user_version").fetchone()
        if version > VERSION:
            # Whether it is a newer agent's, or the number is damaged, the list of steps tells.
            (steps,) = connection.execute(_SQL["steps"]).fetchone()
            return Finding() if steps == version else Finding(("its version and its list of steps differ",))
        connection.set_progress_handler(lambda: not go_on(), _STEPS_BETWEEN_LOOKS)
        try:
            reasons = [row[0] for row in connection.execute(f"pragma quick_check({REASONS_KEPT})")]
            if reasons == ["ok"]:
                reasons = _contradictions(connection) if version == VERSION else []
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_INTERRUPT:
                return Finding(finished=False)
            raise
    raise_if_unreadable(path, reasons)
    return Finding(tuple(reasons))


def _contradictions(connection: sqlite3.Connection) -> list[str]:
    return [f"{row[0]} does not fit the rest" for row in connection.execute(_SQL["contradictions"])]


def raise_if_unreadable(path: Path, reasons: Sequence[str]) -> None:
    """A bad read is in a check's list like damage, with SQLite's code for input/output. Raises LocalFault for it."""
    for reason in reasons:
        code = _ERROR_CODE.search(reason)
        if code and int(code[1]) & 0xFF == sqlite3.SQLITE_IOERR:
            raise LocalFault(f"{path}: the disk could not read all of it. It was left as it is; it is tried again.")


def refuse_anothers(path: Path, device_id: str) -> None:
    """A damaged spool of another device is no more ours than a sound one. Raises SpoolRefused."""
    if is_orphaned(path):
        return
    try:
        with closing(connect_reading(path)) as connection:
            owner, is_ours = connection.execute(_SQL["owner"], {"device_id": device_id}).fetchone() or (None, True)
    except sqlite3.Error:
        return  # whose it was can't be read; in a batch's name it can, and salvage looks at that
    if not is_ours and owner != device_id and isinstance(owner, str) and device_id_problem(owner) is None:
        raise SpoolRefused(f"{path} belongs to device {owner}, not {device_id}, and is damaged: it was left as it is.")


def mark(path: Path, reason: str, clock: Clock) -> None:
    """Note durably that the spool is to be moved aside at the next start. Raises OSError."""
    if _intent(path):
        return
    at = clock.now()
    name = f"damaged-{at:%Y%m%dT%H%M%SZ}"
    taken = sum(1 for folder in path.parent.glob(f"{name}*") if folder.is_dir())
    intent = Intent(f"{name}-{taken + 1}" if taken else name, reason, format_instant(at))
    write_safely(os.fsencode(_intent_file(path)), msgspec.json.encode(intent))


def move_aside(path: Path) -> Path | None:
    """Carry out a noted intent; return the folder with the files, or None when there is none. Raises OSError.

    The caller is `alone`.
    """
    intent = _intent(path)
    if intent is None:
        return None
    folder = path.parent / intent.folder
    folder.mkdir(exist_ok=True, mode=0o750)
    _sync(path.parent)
    for suffix in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(folder / file.name)
    _sync(folder, path.parent)
    _intent_file(path).rename(folder / "reason.json")
    _sync(folder, path.parent)
    return folder


def _sync(*folders: Path) -> None:
    for folder in folders:
        sync_folder(os.fsencode(folder))


def folders(path: Path) -> list[Path]:
    """Where spools lie that were moved aside, the oldest first."""
    return sorted(folder for folder in path.parent.glob("damaged-*") if folder.is_dir())


def reason_of(folder: Path) -> str:
    """Why a spool was moved aside."""
    intent = _read_intent(folder / "reason.json")
    return intent.reason if intent else "not known any more"


def shared_lock(path: Path) -> IO[str]:
    """Hold off moving aside for as long as a spool is open. Raises OSError."""
    return _locked(path, fcntl.LOCK_SH)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody has the spool open, and let nobody open it meanwhile. Raises OSError."""
    with _locked(path, fcntl.LOCK_EX):
        yield


def _locked(path: Path, kind: int) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    lock = path.with_name("spool.lock").open("a+")
    try:
        fcntl.flock(lock, kind)
    except BaseException:
        lock.close()
        raise
    return lock


def _intent_file(path: Path) -> Path:
    return path.with_name("spool.damaged")


def _intent(path: Path) -> Intent | None:
    return _read_intent(_intent_file(path))


def _read_intent(file: Path) -> Intent | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Intent)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        # The card damaged this too. It was only ever written with a proof.
        return Intent("damaged-again", "not known any more", "")


def _code(error: BaseException) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code
