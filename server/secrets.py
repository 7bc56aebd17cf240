"""The secrets beside an embedded database: who signs tokens, and the service's own token.

    DATA/secrets/jwt-secret            signs every token; made once, then only read
    DATA/secrets/jwt-secret-previous   the one before it, after a change: what it signed counts for 30 days more
    DATA/secrets/service-token         a service_role token, renewed by `up` long before it expires

May be relied on: both are closed to other users and complete on the disk before anything relies on them.
A lost secret is never made anew while devices exist: their tokens would all be void, and nobody would be near. It may
be changed on purpose: then the one before it is kept beside it first.
"""

import os
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from server.errors import Misconfigured
from server.files import hand_over, sync_folder, write_safely
from server.tokens import (
    DAY_S,
    DAYS_MAX,
    EDGE_UPLOADER,
    SERVICE_ROLE,
    PreviousSecret,
    TokenRefused,
    any_device,
    issue,
    read,
    verify,
)

VARIABLE = "SUPABASE_JWT_SECRET"
VARIABLE_PREVIOUS = "SUPABASE_JWT_SECRET_PREVIOUS"
BYTES_MIN = 32
"""HS256 is no stronger than its key: shorter ones can be guessed from one token."""
SERVICE_SUBJECT = "scout-server"
SERVICE_DAYS = 30
SERVICE_RENEWED_AFTER = timedelta(days=SERVICE_DAYS / 2)
PREVIOUS_COUNTS_FOR = timedelta(days=DAYS_MAX[EDGE_UPLOADER])
"""Then every device's token that the previous secret signed has expired."""


def jwt_secret_file(data: Path) -> Path:
    """Where the secret of the server in `data` lies."""
    return data / "secrets" / "jwt-secret"


def previous_secret_file(data: Path) -> Path:
    """Where the secret before the present one lies, if there was one."""
    return data / "secrets" / "jwt-secret-previous"


def service_token_file(data: Path) -> Path:
    """Where the service token of the server in `data` lies."""
    return data / "secrets" / "service-token"


def find_jwt_secret(data: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the secret of the environment, else the one kept in `data`, else None.

    Raises Misconfigured when it is too short, or closed to this user.
    """
    given = environment.get(VARIABLE)
    if given:
        return _long_enough(given, f"the environment variable {VARIABLE}")
    if data is None:
        return None
    path = jwt_secret_file(data)
    try:
        return _long_enough(path.read_text().strip(), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} can't be read ({type(error).__name__}): run this as the user that runs "
            f"'scout-server up', or set {VARIABLE}."
        ) from error


def find_previous_secret(data: Path | None, environment: Mapping[str, str], now: datetime) -> PreviousSecret | None:
    """Return the secret before the present one, of the environment, else as kept in `data`; None once it is over.

    The file's counts from the change on, the environment's from `now` on: who set it takes it away again. Raises
    Misconfigured when it is too short, or closed to this user.
    """
    given = environment.get(VARIABLE_PREVIOUS)
    if given:
        text = _long_enough(given, f"the environment variable {VARIABLE_PREVIOUS}")
        return PreviousSecret(text, now + PREVIOUS_COUNTS_FOR)
    if data is None:
        return None
    path = previous_secret_file(data)
    try:
        text = _long_enough(path.read_text().strip(), str(path))
        changed_at = datetime.fromtimestamp(path.stat().st_mtime, now.tzinfo)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} can't be read ({type(error).__name__}): see to its owner and mode.") from error
    until = min(changed_at, now) + PREVIOUS_COUNTS_FOR
    return PreviousSecret(text, until) if now < until else None


def change_jwt_secret(data: Path, environment: Mapping[str, str], *, leaked: bool) -> None:
    """Make another secret for the server in `data`, in force from its next start on; the one before it is kept beside.

    `leaked`: the one before counts no longer, so whoever has it can make no token. Raises Misconfigured where the
    secret is not ours to change.
    """
    if environment.get(VARIABLE):
        raise Misconfigured(
            f"{VARIABLE} holds the secret: change it there, and set {VARIABLE_PREVIOUS} to the one before it."
        )
    present = need_jwt_secret(data, environment)
    if leaked:
        previous_secret_file(data).unlink(missing_ok=True)
    else:
        write(previous_secret_file(data), present)
    # Only now: cut before this, both files hold the same secret, which is no harm.
    write(jwt_secret_file(data), secrets.token_urlsafe(48))


def need_jwt_secret(data: Path | None, environment: Mapping[str, str]) -> str:
    """Return the secret; raise Misconfigured when there is none, saying where it may come from."""
    secret = find_jwt_secret(data, environment)
    if secret is None:
        where = f" or start 'scout-server up --data {data}' once, which makes one" if data else ""
        raise Misconfigured(f"no JWT secret: set {VARIABLE} to the project's{where}.")
    return secret


def keep_jwt_secret(connection: psycopg.Connection, data: Path, environment: Mapping[str, str]) -> str:
    """Return the secret, made now if there is none yet and no device could hold a token of a lost one.

    Raises Misconfigured when the secret is gone although devices exist.
    """
    secret = find_jwt_secret(data, environment)
    if secret is not None:
        return secret
    path = jwt_secret_file(data)
    if any_device(connection):
        raise Misconfigured(
            f"{path} is gone, but devices hold tokens that were signed with it: bring it back from a backup "
            f"of {data}, or set {VARIABLE} to the secret that signed them. Nothing was changed."
        )
    secret = secrets.token_urlsafe(48)
    write(path, secret)
    return secret


def keep_service_token(connection: psycopg.Connection, data: Path, secret: str, now: datetime) -> bool:
    """See that the service token is good and has half its life before it; True when it was renewed."""
    path = service_token_file(data)
    try:
        identity = verify(path.read_text().strip(), secret, connection, now)
        if now.timestamp() < identity.issued_at + SERVICE_RENEWED_AFTER.days * DAY_S:
            return False
    except (FileNotFoundError, UnicodeDecodeError, TokenRefused):
        pass  # missing, damaged, expired or signed with another secret: a new one mends all of them
    with connection.transaction():
        token = issue(connection, secret, SERVICE_SUBJECT, SERVICE_ROLE, days=SERVICE_DAYS, now=now)
    write(path, token)
    return True


def refuse_other_secret(data: Path, secret: str, now: datetime) -> None:
    """Raise Misconfigured when the server in `data` runs with another secret than this one.

    Its service token tells: a token signed with the other would be refused by it.
    """
    try:
        read(service_token_file(data).read_text().strip(), secret, now)
    except FileNotFoundError:
        return
    except TokenRefused as refused:
        if "signature" in str(refused):
            raise Misconfigured(
                f"the server in {data} runs with another JWT secret than this one: set {VARIABLE} here as "
                "there, or unset it in both places. After 'tokens change-secret', start it again first."
            ) from None


def copy_secret(kept: Path, folder: Path) -> None:
    """Keep a secret in another folder as well, with the time since which the one before the present counts."""
    path = folder / "secrets" / kept.name
    write(path, kept.read_text().strip())
    os.utime(path, (kept.stat().st_atime, kept.stat().st_mtime))


def write(path: Path, secret: str) -> None:
    """Keep a secret, closed to others, in a folder that is closed, too."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    hand_over(path.parent)
    write_safely(path, secret.encode() + b"\n", 0o600)
    sync_folder(path.parent.parent)


def _long_enough(secret: str, where: str) -> str:
    if len(secret.encode()) < BYTES_MIN:
        raise Misconfigured(f"{where} holds a secret of less than {BYTES_MIN} bytes: use the project's own.")
    return secret
